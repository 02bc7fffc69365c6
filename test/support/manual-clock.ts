import type { Clock } from "../../src/foundation/runtime/index.js";

/** A clock that stands still until it is turned. */
export class ManualClock implements Clock {
  #now = 0;
  readonly #timers = new Set<{ readonly at: number; readonly callback: () => void; readonly keepsAlive: boolean }>();

  now(): number {
    return this.#now;
  }

  /** Number of pending timers. */
  get timers(): number {
    return this.#timers.size;
  }

  /** True if a pending timer keeps the process alive. */
  get keepsAlive(): boolean {
    return [...this.#timers].some(({ keepsAlive }) => keepsAlive);
  }

  setTimeout(callback: () => void, delayMs: number, keepsAlive = true): () => void {
    const timer = { at: this.#now + delayMs, callback, keepsAlive };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  /** Turns the clock forward, calling back whatever is due on the way, in its order. */
  advance(ms: number): void {
    const until = this.#now + ms;
    for (;;) {
      const due = [...this.#timers].filter(({ at }) => at <= until).sort((one, other) => one.at - other.at)[0];
      if (due === undefined) break;
      this.#timers.delete(due);
      this.#now = Math.max(this.#now, due.at);
      due.callback();
    }
    this.#now = until;
  }

  /** Turns the clock forward as for a process that stood still: what falls due is called back late. */
  stall(ms: number): void {
    this.#now += ms;
    this.advance(0);
  }
}
