interface Waiting {
  readonly count: number;
  readonly admit: () => void;
}

/** Counting semaphore. Waiters are served first come, first served. */
export class Semaphore {
  #limit: number;
  #acquired = 0;
  readonly #waiting = new Set<Waiting>();

  /** @param limit number of permits, at least 1 */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Number of permits. */
  get limit(): number {
    return this.#limit;
  }

  /** Sets the number of permits. A smaller limit revokes no permit. */
  set limit(limit: number) {
    this.#limit = limit;
    this.#admit();
  }

  /**
   * Acquires `count` permits if they are free and no waiter is before the caller. Each acquired permit must be released
   * once.
   */
  tryAcquire(count = 1): boolean {
    if (this.#waiting.size > 0 || this.#acquired + count > this.#limit) return false;
    this.#acquired += count;
    return true;
  }

  /**
   * Waits for `count` permits.
   *
   * @param count at most the limit
   * @param signal ends the wait
   * @throws (as a rejection) the signal's reason
   */
  async acquire(count = 1, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    if (this.tryAcquire(count)) return;
    await new Promise<void>((resolve, reject) => {
      const leave = (): void => {
        this.#waiting.delete(waiting);
        reject(signal!.reason);
        this.#admit();
      };
      const admit = (): void => {
        signal?.removeEventListener("abort", leave);
        resolve();
      };
      const waiting: Waiting = { count, admit };
      signal?.addEventListener("abort", leave, { once: true });
      this.#waiting.add(waiting);
    });
  }

  release(count = 1): void {
    this.#acquired -= count;
    this.#admit();
  }

  #admit(): void {
    for (const waiting of this.#waiting) {
      if (this.#acquired + waiting.count > this.#limit) return;
      this.#waiting.delete(waiting);
      this.#acquired += waiting.count;
      waiting.admit();
    }
  }
}
