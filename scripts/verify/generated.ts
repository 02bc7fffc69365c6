import { join } from "node:path";
import { buf, projectRoot } from "./command.js";
import type { Step } from "./step.js";
import { withTemporaryFolder } from "./temporary-folder.js";
import { compareTrees } from "./trees.js";

/** Folders that `buf generate` writes. */
const folders = ["generated", "deploy/chart/dashboards"];

/** Step that checks that these folders equal the output of `buf generate` for the spec in the working tree. */
export const generatedStep: Step = {
  name: "generated",
  run: () =>
    withTemporaryFolder(async (folder) => {
      // `--output` prefixes every `out` of buf.gen.yaml, so `clean` empties folders there and not here.
      const { status, output } = await buf("generate", "--output", folder);
      if (status !== 0) {
        return { kind: "failed", details: output, remedy: "Correct the spec at the places that buf names." };
      }
      const compared = folders.map((name) => compareTrees(join(projectRoot, name), join(folder, name), name));
      const differences = (await Promise.all(compared)).flat();
      return differences.length === 0
        ? { kind: "ok" }
        : { kind: "failed", details: differences.join("\n"), remedy: "Run: npx buf generate" };
    }),
};
