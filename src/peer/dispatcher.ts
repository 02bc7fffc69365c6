/** Gives channels with messages their turn: one after another, at most `concurrency` handlers at once. */

/** How long messages or requests are begun in a turn, before the event loop has its own. */
export const turnMs = 5;

/** What gets its turn. */
export interface Turn {
  run(): void;
}

export class Dispatcher {
  readonly #woken = new Set<Turn>();
  #running = 0;
  #scheduled = false;

  readonly #concurrency: number;

  constructor(concurrency: number) {
    this.#concurrency = concurrency;
  }

  /** `turn` has something to run: it is called back. */
  wake(turn: Turn): void {
    this.#woken.add(turn);
    this.#schedule();
  }

  /** Whether others wait for their turn. */
  get hasWoken(): boolean {
    return this.#woken.size > 0;
  }

  /** How many more handlers may run beside the others. */
  get free(): number {
    return Math.max(0, this.#concurrency - this.#running);
  }

  /** Whether one more handler may run beside the others. */
  takeSlot(): boolean {
    if (this.#running >= this.#concurrency) return false;
    this.#running += 1;
    return true;
  }

  /** A handler has ended. */
  freeSlot(): void {
    this.#running -= 1;
    if (this.#woken.size > 0) this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled || this.#running >= this.#concurrency) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      const turns = [...this.#woken];
      this.#woken.clear();
      for (const turn of turns) turn.run();
    });
  }
}
