import { buf } from "./command.js";
import type { Step } from "./step.js";

/** Step that checks that the spec follows buf's STANDARD rules. */
export const lintStep: Step = {
  name: "lint",
  async run() {
    const { status, output } = await buf("lint");
    return status === 0
      ? { kind: "ok" }
      : { kind: "failed", details: output, remedy: "Correct the lines of proto/ named above." };
  },
};
