/** Clocks of time zones: their offsets from UTC and the times at which these change, as `Intl` knows them. */

const minuteMs = 60_000;
export const dayMs = 86_400_000;

/** Longest time that a change of a clock skips or repeats: a day, where a country moves across the date line. */
export const reachMs = 2 * dayMs;
/** Length of a {@link Stretch}. No clock changes twice within this time and `reachMs`. */
const stretchMs = 4 * dayMs;
const mostStretches = 200;
const mostNames = 1_000;

/** Period of `stretchMs`, in which the clock changes at most once. Times and offsets are in ms. */
export interface Stretch {
  readonly end: number;
  /** Time of the change, from `reachMs` before the stretch to its end; -Infinity if there is none. */
  readonly change: number;
  /** Offset from UTC before the change. */
  readonly before: number;
  /** Offset from UTC after the change, or the only one. */
  readonly after: number;
}

/** Clock of a time zone. */
export class ZoneClock {
  readonly #format: Intl.DateTimeFormat;
  readonly #stretches = new Map<number, Stretch>();

  private constructor(format: Intl.DateTimeFormat) {
    this.#format = format;
  }

  /** Clocks by the names given, which include thousands of upper- and lowercase variants of one name. */
  static readonly #given = new Map<string, ZoneClock>();
  static readonly #canonical = new Map<string, ZoneClock>();

  /** @throws RangeError if Node.js does not know the time zone */
  static of(timezone: string): ZoneClock {
    const known = ZoneClock.#given.get(timezone);
    if (known !== undefined) return known;
    const format = new Intl.DateTimeFormat("en-US", {
      timeZone: timezone,
      hourCycle: "h23",
      year: "numeric",
      month: "numeric",
      day: "numeric",
      hour: "numeric",
      minute: "numeric",
      second: "numeric",
    });
    const { timeZone } = format.resolvedOptions();
    if (ZoneClock.#given.size >= mostNames) {
      ZoneClock.#given.clear();
      ZoneClock.#canonical.clear();
    }
    const clock = ZoneClock.#canonical.get(timeZone) ?? new ZoneClock(format);
    ZoneClock.#canonical.set(timeZone, clock);
    ZoneClock.#given.set(timezone, clock);
    return clock;
  }

  /** Stretch that contains a time. */
  stretchAt(time: number): Stretch {
    const nth = Math.floor(time / stretchMs);
    let stretch = this.#stretches.get(nth);
    if (stretch === undefined) {
      stretch = this.#stretch(nth * stretchMs - reachMs, (nth + 1) * stretchMs);
      if (this.#stretches.size >= mostStretches) this.#stretches.clear();
      this.#stretches.set(nth, stretch);
    }
    return stretch;
  }

  #stretch(from: number, end: number): Stretch {
    const [before, after] = [this.#offsetAt(from), this.#offsetAt(end)];
    if (before === after) return { end, change: Number.NEGATIVE_INFINITY, before, after };
    let [low, high] = [from, end];
    while (high - low > minuteMs) {
      const middle = low + Math.floor((high - low) / 2 / minuteMs) * minuteMs;
      if (this.#offsetAt(middle) === before) low = middle;
      else high = middle;
    }
    return { end, change: high, before, after };
  }

  /** Offset from UTC at a time in whole seconds. */
  #offsetAt(time: number): number {
    const [month, day, year, hour, minute, second] = this.#format.format(time).match(/\d+/g)!.map(Number);
    return Date.UTC(year!, month! - 1, day, hour, minute, second) - time;
  }
}
