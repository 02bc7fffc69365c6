/**
 * How much time an operation has left.
 */

/** A moment by which an operation must have settled, whatever NATS does. */
export class Deadline {
  readonly #at: number;

  /** @param timeoutMs from now on; at least 1 */
  constructor(readonly timeoutMs: number) {
    this.#at = performance.now() + timeoutMs;
  }

  /** Milliseconds left, at least 1: the library takes 0 for its own default. */
  get remainingMs(): number {
    return Math.max(1, Math.ceil(this.#at - performance.now()));
  }

  /** True from the moment itself on. */
  get isOver(): boolean {
    return performance.now() >= this.#at;
  }
}
