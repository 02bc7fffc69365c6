/** Injected time, so that tests advance it instead of waiting: `test/support/manual-clock.ts`. */

/** Clock with timers. */
export interface Clock {
  /** Milliseconds on a monotonic clock with arbitrary origin. */
  now(): number;
  /**
   * Calls `callback` once after `delayMs`. Returns a function that cancels the call; it may be called late or
   * repeatedly.
   *
   * @param keepsAlive false if the process may end before the call. Default: true
   */
  setTimeout(callback: () => void, delayMs: number, keepsAlive?: boolean): () => void;
}

/** Monotonic clock of the process, unaffected by changes of the wall clock. */
export const systemClock: Clock = {
  now: () => performance.now(),
  setTimeout(callback, delayMs, keepsAlive = true) {
    const timer = setTimeout(callback, delayMs);
    if (!keepsAlive) timer.unref();
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

/** Settles as `work` does, or rejects with the signal's reason as soon as it is aborted. */
export function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}

/** Resolves with true after `delayMs`, or with false as soon as `signal` is aborted. */
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
