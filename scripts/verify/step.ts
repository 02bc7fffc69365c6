/** Step of `npm run verify`. */
export interface Step {
  readonly name: string;
  /** Rejects only if the step itself could not run; such a step counts as failed. */
  run(): Promise<Outcome>;
}

export type Outcome =
  | { readonly kind: "ok" }
  /** Problem, in complete lines, and its remedy. */
  | { readonly kind: "failed"; readonly details: string; readonly remedy: string };

/** Runs all steps one after another, prints a line for each, and returns true if none failed. */
export async function runSteps(steps: readonly Step[], print: (line: string) => void = console.log): Promise<boolean> {
  let failed = 0;
  for (const step of steps) {
    const started = performance.now();
    const outcome = await outcomeOf(step);
    const took = `${Math.round(performance.now() - started)} ms`;
    print(`${outcome.kind.padEnd(8)}${step.name.padEnd(12)}${took}`);
    if (outcome.kind === "failed") {
      failed += 1;
      print(`${indented(outcome.details)}\n  → ${outcome.remedy}`);
    }
  }
  print(failed === 0 ? "verify: ok" : `verify: ${failed} of ${steps.length} failed`);
  return failed === 0;
}

async function outcomeOf(step: Step): Promise<Outcome> {
  try {
    return await step.run();
  } catch (error) {
    return {
      kind: "failed",
      details: error instanceof Error ? (error.stack ?? error.message) : String(error),
      remedy: "The step itself could not run: read the error above.",
    };
  }
}

function indented(text: string): string {
  return text.trimEnd().replace(/^/gm, "  ");
}
