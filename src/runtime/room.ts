interface Waiting {
  readonly count: number;
  readonly go: () => void;
}

/** Places that are taken and given back. Those that find too few of them free wait: first come, first served. */
export class Room {
  #limit: number;
  #taken = 0;
  readonly #waiting = new Set<Waiting>();

  /** @param limit places that may be taken at once, at least 1 */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Places that may be taken at once. */
  get limit(): number {
    return this.#limit;
  }

  /** A smaller limit takes no place away. */
  set limit(limit: number) {
    this.#limit = limit;
    this.#admit();
  }

  /** Takes so many places if they are free and nobody else waits. All that was taken is given back once. */
  tryTake(count = 1): boolean {
    if (this.#waiting.size > 0 || this.#taken + count > this.#limit) return false;
    this.#taken += count;
    return true;
  }

  /**
   * Waits for so many places.
   *
   * @param count no more than the limit
   * @param signal ends the waiting
   * @throws (as a rejection) the signal's reason
   */
  async take(count = 1, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    if (this.tryTake(count)) return;
    await new Promise<void>((resolve, reject) => {
      const leave = (): void => {
        this.#waiting.delete(waiting);
        reject(signal!.reason);
        this.#admit();
      };
      const go = (): void => {
        signal?.removeEventListener("abort", leave);
        resolve();
      };
      const waiting: Waiting = { count, go };
      signal?.addEventListener("abort", leave, { once: true });
      this.#waiting.add(waiting);
    });
  }

  giveBack(count = 1): void {
    this.#taken -= count;
    this.#admit();
  }

  #admit(): void {
    for (const waiting of this.#waiting) {
      if (this.#taken + waiting.count > this.#limit) return;
      this.#waiting.delete(waiting);
      this.#taken += waiting.count;
      waiting.go();
    }
  }
}
