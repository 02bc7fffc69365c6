import ora from "ora";

/** Tells on standard error what is being done: a spinner on a terminal, a line each elsewhere. */
export interface Progress {
  say(message: string): void;
  /** Ends the spinner. */
  end(): void;
}

/** Starts telling. */
export function startProgress(): Progress {
  if (!process.stderr.isTTY) return { say: (message) => process.stderr.write(`${message}\n`), end: () => undefined };
  // Standard input stays ours: it tells when whoever started us is gone.
  const spinner = ora({ stream: process.stderr, discardStdin: false }).start();
  return { say: (message) => (spinner.text = message), end: () => spinner.stop() };
}
