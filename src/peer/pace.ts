/**
 * How fast a listener handles what one sender gives it: by what it has acknowledged lately. Pure: times come from outside.
 */
import { protocolConstants } from "../../generated/ts/settings/peer.js";

/** The time that {@link Pace.lately} looks back is counted in so many parts. */
const parts = 5;
/** Over so many ms the longer memory fades to about a third. */
const fadeMs = 2_000;

export class Pace {
  readonly #counts = new Array<number>(parts).fill(0);
  /** The newest part. */
  #part = 0;
  #lately = 0;
  #faded = 0;
  #fadedAt = 0;

  /** The listener has acknowledged `count` more. @param now in ms */
  handled(count: number, now: number): void {
    this.#moveTo(now);
    this.#counts[this.#part % parts]! += count;
    this.#lately += count;
    this.#faded = this.#fadedBy(now) + count;
    this.#fadedAt = now;
  }

  /** How many within the last `groupPaceMs`. */
  lately(now: number): number {
    this.#moveTo(now);
    return this.#lately;
  }

  /** How long `messages` would take it, compared with others: what it handled within the last seconds counts. */
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
