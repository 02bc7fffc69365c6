/**
 * Time as the store sees it: given from outside, so that tests turn the clock instead of waiting.
 */
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

/**
 * Resolves after `delayMs`; early, and with `false`, when `signal` aborts.
 */
export function delay(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<boolean> {
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
