import { join } from "node:path";
import { buf, projectRoot } from "./command.js";
import type { Step } from "./step.js";
import { withTemporaryFolder } from "./temporary-folder.js";
import { compareTrees } from "./trees.js";

/** `generated/` is what `buf generate` makes of the spec as it lies here, committed or not. */
export const generatedStep: Step = {
  name: "generated",
  run: () =>
    withTemporaryFolder(async (folder) => {
      // `--output` goes before every `out` of buf.gen.yaml; `clean` then empties folders there and not here.
      const { status, output } = await buf("generate", "--output", folder);
      if (status !== 0) {
        return { kind: "failed", details: output, remedy: "Correct the spec where buf says so." };
      }
      const differences = await compareTrees(join(projectRoot, "generated"), join(folder, "generated"));
      return differences.length === 0
        ? { kind: "ok" }
        : { kind: "failed", details: differences.join("\n"), remedy: "Run: npx buf generate" };
    }),
};
