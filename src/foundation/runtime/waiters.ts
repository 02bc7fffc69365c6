/** Promises that are settled together. A waiter can also end by a signal or a timeout. */
export class Waiters {
  readonly #waiting = new Set<(error: Error | undefined) => void>();

  /** True if nobody waits. */
  get isEmpty(): boolean {
    return this.#waiting.size === 0;
  }

  /**
   * Resolves or rejects with the next `settle`. Also resolves after `timeoutMs`, if given.
   *
   * @throws the reason of the signal, once it is aborted
   */
  next(signal?: AbortSignal, timeoutMs?: number): Promise<void> {
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

  /** Resolves all current waiters, or rejects them with the error. */
  settle(error?: Error): void {
    for (const settle of [...this.#waiting]) settle(error);
  }
}
