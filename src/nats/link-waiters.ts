/**
 * Waiting for what becomes of a link.
 */

/** Promises that are settled together, each of which its owner can leave by a signal or after a time. */
export class Waiters {
  readonly #waiting = new Set<(error: Error | undefined) => void>();

  /** Resolves or rejects with the next `settle`. @throws the reason of the signal, once it is aborted */
  next(signal?: AbortSignal): Promise<void> {
    return this.#wait(undefined, signal);
  }

  /** The same; resolves also after `timeoutMs`. */
  nextWithin(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    return this.#wait(timeoutMs, signal);
  }

  /** Resolves everyone who waits now, or rejects them with the error. */
  settle(error?: Error): void {
    for (const settle of [...this.#waiting]) settle(error);
  }

  #wait(timeoutMs: number | undefined, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const settle = (error: Error | undefined): void => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", onAbort);
        this.#waiting.delete(settle);
        if (error === undefined) resolve();
        else reject(error);
      };
      const onAbort = (): void => settle(signal!.reason);
      const timer = timeoutMs === undefined ? undefined : setTimeout(() => settle(undefined), timeoutMs);
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#waiting.add(settle);
    });
  }
}
