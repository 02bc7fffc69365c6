/** Gives channels with messages their turn: one after another, at most `concurrency` handlers at once. */
import type { Turn } from "./inbox-services.js";

export class Dispatcher {
  readonly #woken = new Set<Turn>();
  #running = 0;
  #scheduled = false;

  readonly #concurrency: number;

  constructor(concurrency: number) {
    this.#concurrency = concurrency;
  }

  wake(turn: Turn): void {
    this.#woken.add(turn);
    this.#schedule();
  }

  /** Whether channels wait for their turn. */
  get hasWoken(): boolean {
    return this.#woken.size > 0;
  }

  takeSlot(): boolean {
    if (this.#running >= this.#concurrency) return false;
    this.#running += 1;
    return true;
  }

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
