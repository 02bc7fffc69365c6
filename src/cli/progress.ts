/**
 * How far a long command is, on standard error, for whoever sits in front of it. Nobody does when that is no terminal.
 */

/** A line that changes in place. */
export interface Progress {
  update(text: string): void;
  /** Takes the line away. */
  stop(): void;
}

const silent: Progress = { update() {}, stop() {} };

/** How often the line changes at most. */
const updateMs = 100;

/** Begins a line, unless nobody would see it: standard error is no terminal, or `wanted` is false. */
export async function startProgress(text: string, wanted: boolean): Promise<Progress> {
  // In a terminal without a width, as `script` and some containers make it, ora would count lines for ever.
  if (!wanted || !process.stderr.isTTY || !process.stderr.columns) return silent;
  const { default: ora } = await import("ora");
  // Standard input is the command's, and Ctrl-C comes as a signal.
  const spinner = ora({ text, stream: process.stderr, discardStdin: false }).start();
  let at = 0;
  return {
    update(next) {
      if (performance.now() - at < updateMs) return;
      at = performance.now();
      spinner.text = next;
    },
    stop: () => void spinner.stop(),
  };
}
