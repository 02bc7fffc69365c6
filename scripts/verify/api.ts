import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { apiReports } from "../api/report.js";
import { projectRoot } from "./command.js";
import type { Step } from "./step.js";
import { withTemporaryFolder } from "./temporary-folder.js";
import { compareTrees } from "./trees.js";

/** Step that checks that `api/` equals the report of the entry points' exports. */
export const apiStep: Step = {
  name: "api",
  run: () =>
    withTemporaryFolder(async (folder) => {
      const made = join(folder, "api");
      await mkdir(made);
      for (const { file, text } of await apiReports(projectRoot)) await writeFile(join(made, file), text);
      const differences = await compareTrees(join(projectRoot, "api"), made, "api");
      return differences.length === 0
        ? { kind: "ok" }
        : {
            kind: "failed",
            details: differences.join("\n"),
            remedy: "Run: npm run api. Its diff is what changes for users.",
          };
    }),
};
