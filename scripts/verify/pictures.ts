import { pictureProblems } from "../pictures/files.js";
import { projectRoot } from "./command.js";
import type { Step } from "./step.js";

/** Step that checks that `docs/pictures/` and the alternative texts of the pages equal their sources. */
export const picturesStep: Step = {
  name: "pictures",
  async run() {
    const problems = pictureProblems(projectRoot);
    return problems.length === 0
      ? { kind: "ok" }
      : { kind: "failed", details: problems.join("\n"), remedy: "Run: npm run pictures" };
  },
};
