/**
 * Rate at which a listener handles the messages of one sender, measured by recent acknowledgements. Pure: times are
 * arguments.
 */
import { protocolConstants } from "../../generated/ts/settings/peer.js";

/** Number of intervals that the window of {@link Pace.lately} is divided into. */
const parts = 5;
/** Time constant of the longer average, in ms: after this time a count has decayed to 1/e. */
const fadeMs = 2_000;

export class Pace {
  readonly #counts = new Array<number>(parts).fill(0);
  /** Number of the newest interval. */
  #part = 0;
  #lately = 0;
  #faded = 0;
  #fadedAt = 0;

  /** Records `count` further acknowledged messages. @param now in ms */
  handled(count: number, now: number): void {
    this.#moveTo(now);
    this.#counts[this.#part % parts]! += count;
    this.#lately += count;
    this.#faded = this.#fadedBy(now) + count;
    this.#fadedAt = now;
  }

  /** Number of messages within the last `groupPaceMs`. */
  lately(now: number): number {
    this.#moveTo(now);
    return this.#lately;
  }

  /**
   * Estimated time for `messages` further messages, comparable between listeners: based on those handled in the last
   * seconds.
   */
  timeFor(messages: number, now: number): number {
    return messages / (this.#fadedBy(now) + 1);
  }

  #fadedBy(now: number): number {
    return this.#faded * Math.exp((this.#fadedAt - now) / fadeMs);
  }

  #moveTo(now: number): void {
    const part = Math.floor((now * parts) / protocolConstants.groupPaceMs);
    if (part === this.#part) return;
    if (part - this.#part >= parts) {
      this.#counts.fill(0);
      this.#lately = 0;
    } else {
      for (let next = this.#part + 1; next <= part; next++) {
        this.#lately -= this.#counts[next % parts]!;
        this.#counts[next % parts] = 0;
      }
    }
    this.#part = part;
  }
}
