/**
 * When a command that runs on and on is to end: at a signal, or when whoever started it is gone.
 */
import { holdLifeline, type Lifeline } from "./lifeline.js";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/**
 * A second signal means "at once" only after this time. One Ctrl-C can arrive twice: from the terminal, and passed on by
 * npm.
 */
const HURRY_AFTER_MS = 300;

/** The request to stop, as it comes. */
export interface StopRequest {
  /** Aborted by the first request. */
  readonly signal: AbortSignal;
  /** Aborted by a further signal. */
  readonly hurry: AbortSignal;
  /** Call it when the command is up: see {@link Lifeline.trustStandardInput}. */
  started(): void;
  /** Stops listening; signals do again what they do by default. */
  close(): void;
}

/** For commands that leave standard input alone, or read it themselves: only signals count. */
const noLifeline: Lifeline = { signal: new AbortController().signal, trustStandardInput() {}, close() {} };

/**
 * Begins to listen.
 *
 * @param options.lifeline whether the end of standard input, or of the process that started this one, is a request, too
 */
export function awaitStopRequest(options: { readonly lifeline: boolean } = { lifeline: true }): StopRequest {
  const lifeline = options.lifeline ? holdLifeline() : noLifeline;
  const signalled = new AbortController();
  const hurried = new AbortController();
  let first: number | undefined;
  const onSignal = (name: NodeJS.Signals) => {
    if (first === undefined) {
      first = performance.now();
      signalled.abort(name);
    } else if (performance.now() - first > HURRY_AFTER_MS) hurried.abort(name);
  };
  for (const name of SIGNALS) process.on(name, onSignal);
  return {
    signal: AbortSignal.any([signalled.signal, lifeline.signal]),
    hurry: hurried.signal,
    started: () => lifeline.trustStandardInput(),
    close: () => {
      for (const name of SIGNALS) {
        process.off(name, onSignal);
        // All has been stopped: a signal that comes on the way out is no reason to end as if by it.
        if (first !== undefined) process.on(name, () => process.exit());
      }
      lifeline.close();
    },
  };
}
