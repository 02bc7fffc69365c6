import { buf } from "./command.js";
import type { Step } from "./step.js";

/** Step that checks that the spec is formatted. */
export const formatStep: Step = {
  name: "format",
  async run() {
    const { status, output } = await buf("format", "--diff", "--exit-code");
    return status === 0 ? { kind: "ok" } : { kind: "failed", details: output, remedy: "Run: npx buf format --write" };
  },
};
