/**
 * How many messages a batch may have, learnt from how long batches take and how many messages fail.
 *
 * It begins with one and doubles with each full batch that is committed, so that it is at a thousand after ten. It never
 * exceeds what, at the pace of the last batch, takes `targetMs`: far below the statement timeout, because a batch that
 * runs into that is lost time. A dead letter halves it: bisecting costs up to two transactions for each message, so that a
 * function that always fails is better given its messages one by one.
 */
export class BatchSize {
  #present = 1;

  readonly #max: number;
  readonly #targetMs: number;

  /** @param targetMs how long a batch may be expected to take */
  constructor(max: number, targetMs: number) {
    this.#max = max;
    this.#targetMs = targetMs;
  }

  get limit(): number {
    return this.#present;
  }

  committed(count: number, durationMs: number): void {
    const wanted = count >= this.#present ? this.#present * 2 : this.#present;
    this.#set(Math.min(wanted, (count * this.#targetMs) / Math.max(durationMs, 0.001)));
  }

  /** A message has failed alone. */
  buried(): void {
    this.#set(this.#present / 2);
  }

  /** A batch of so many had to be given up; perhaps a smaller one gets through. */
  givenUp(count: number): void {
    this.#set(Math.min(this.#present, count / 2));
  }

  /** A batch ran into the statement timeout: what was learnt about the pace is wrong. */
  timedOut(): void {
    this.#set(1);
  }

  #set(limit: number): void {
    this.#present = Math.min(this.#max, Math.max(1, Math.floor(limit)));
  }
}
