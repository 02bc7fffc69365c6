/** Signals that ask a process to stop. */
export const stopSignals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/**
 * A second signal means "at once" only after this time. One Ctrl-C can arrive twice: from the terminal, and passed on by
 * npm.
 */
export const hurryAfterMs = 300;

/**
 * Calls back at the first signal to stop. A later one does what it does by default: it ends the process.
 *
 * @returns ends the listening
 */
export function onStopSignal(stop: (signal: NodeJS.Signals) => void): () => void {
  let first = true;
  const onSignal = (signal: NodeJS.Signals): void => {
    if (!first) return;
    first = false;
    setTimeout(end, hurryAfterMs).unref();
    stop(signal);
  };
  const end = (): void => {
    for (const name of stopSignals) process.off(name, onSignal);
  };
  for (const name of stopSignals) process.on(name, onSignal);
  return end;
}
