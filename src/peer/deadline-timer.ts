/** One timer that follows a moving deadline; re-armed only when the deadline comes nearer. */
export class DeadlineTimer {
  #timer: NodeJS.Timeout | undefined;
  #at = Number.POSITIVE_INFINITY;

  readonly #due: () => void;

  /** `due` is called when the deadline has come; it arms the timer again if there is another. */
  constructor(due: () => void) {
    this.#due = due;
  }

  /** The deadline is now `at` (ms of `performance.now`), Infinity for none. */
  arm(at: number): void {
    if (at >= this.#at) return;
    clearTimeout(this.#timer);
    this.#at = at;
    this.#timer = setTimeout(
      () => {
        this.#at = Number.POSITIVE_INFINITY;
        this.#due();
      },
      Math.min(2 ** 31 - 1, Math.max(0, Math.ceil(at - performance.now()))),
    );
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#at = Number.POSITIVE_INFINITY;
  }
}
