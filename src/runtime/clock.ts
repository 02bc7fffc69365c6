/**
 * Time comes from outside, so that tests move it instead of waiting: `test/support/manual-clock.ts`.
 */

/** A clock and its timers. */
export interface Clock {
  /** Milliseconds on a clock that only goes forward; its zero means nothing. */
  now(): number;
  /** Calls `callback` once after `delayMs`. Returns what takes the call back; doing that late or twice is harmless. */
  setTimeout(callback: () => void, delayMs: number): () => void;
}

/** The clock of the process. It is monotonic: a change of the wall clock moves nothing. */
export const systemClock: Clock = {
  now: () => performance.now(),
  setTimeout(callback, delayMs) {
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
};

/** Resolves when the signal is aborted. */
export function whenAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

/**
 * Resolves after `delayMs`; at once and with `false` when `signal` aborts.
 */
export function delay(delayMs: number, signal?: AbortSignal, clock: Clock = systemClock): Promise<boolean> {
  return new Promise((resolve) => {
    if (signal?.aborted) {
      resolve(false);
      return;
    }
    const onAbort = (): void => {
      cancel();
      resolve(false);
    };
    const cancel = clock.setTimeout(() => {
      signal?.removeEventListener("abort", onAbort);
      resolve(true);
    }, delayMs);
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}
