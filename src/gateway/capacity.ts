/**
 * How many commands may be under way at once; the others wait their turn.
 */

interface Waiting {
  readonly go: (admitted: boolean) => void;
  readonly timer: NodeJS.Timeout;
}

/** First come, first served. */
export class Capacity {
  #limit: number;
  #running = 0;
  readonly #waiting = new Set<Waiting>();

  /** @param limit commands at once, at least 1 */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Commands at once. */
  get limit(): number {
    return this.#limit;
  }

  /** A smaller limit ends nothing that is under way. */
  set limit(limit: number) {
    this.#limit = limit;
    this.#admit();
  }

  /** Takes a place if one is free and no other command waits for it. Each place that was taken is given back once. */
  tryTake(): boolean {
    if (this.#running >= this.#limit || this.#waiting.size > 0) return false;
    this.#running++;
    return true;
  }

  /** Waits for a place. @returns false if there was none for so long */
  take(waitMs: number): Promise<boolean> {
    if (this.tryTake()) return Promise.resolve(true);
    return new Promise((resolve) => {
      const waiting: Waiting = {
        go: resolve,
        timer: setTimeout(() => {
          this.#waiting.delete(waiting);
          resolve(false);
        }, waitMs),
      };
      this.#waiting.add(waiting);
    });
  }

  /** Gives a place back. */
  release(): void {
    this.#running--;
    this.#admit();
  }

  #admit(): void {
    for (const waiting of this.#waiting) {
      if (this.#running >= this.#limit) return;
      this.#waiting.delete(waiting);
      clearTimeout(waiting.timer);
      this.#running++;
      waiting.go(true);
    }
  }
}
