/**
 * Rate at which messages are handled, measured by recent acknowledgements or ended handlers. Pure: times are arguments.
 */

/**
 * Time window of a group member's throughput: it may have twice the messages in progress that it handled within this
 * time.
 */
const groupPaceMs = 50;
/** Minimum number of messages that a group member may have in progress: the running one and the next. */
export const groupLeastUnderWay = 2;

/** Number of intervals that the window of {@link Pace.recent} is divided into. */
const intervals = 5;

export class Pace {
  readonly #counts = new Array<number>(intervals).fill(0);
  /** Number of the newest interval. */
  #interval = 0;
  #recent = 0;

  /** Records `count` further handled messages. @param now in ms */
  handled(count: number, now: number): void {
    this.#advance(now);
    this.#counts[this.#interval % intervals]! += count;
    this.#recent += count;
  }

  /** Number of messages within the last `groupPaceMs`. */
  recent(now: number): number {
    this.#advance(now);
    return this.#recent;
  }

  #advance(now: number): void {
    const interval = Math.floor((now * intervals) / groupPaceMs);
    if (interval === this.#interval) return;
    if (interval - this.#interval >= intervals) {
      this.#counts.fill(0);
      this.#recent = 0;
    } else {
      for (let next = this.#interval + 1; next <= interval; next++) {
        this.#recent -= this.#counts[next % intervals]!;
        this.#counts[next % intervals] = 0;
      }
    }
    this.#interval = interval;
  }
}
