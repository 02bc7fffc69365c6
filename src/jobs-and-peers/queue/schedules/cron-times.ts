/**
 * Times of a cron expression in a time zone. Pure functions without a clock.
 *
 * Croner reads the expression. Its search is not used, because it tries 400 years, and each second of a skipped hour:
 * roles choose expressions, and others wait. Here the calendar gives the next time that a clock on the wall has to show,
 * and the time zone says when the clock shows it. A search takes microseconds, and a few milliseconds at most.
 *
 * Changes of clocks: an expression with fixed times (no `*` and no step in second, minute and hour) occurs once if its
 * time exists twice, and right after the gap if its time does not exist. All other expressions follow elapsed time: they
 * occur in both repeated hours and not in a skipped hour.
 */
import { CronPattern } from "croner";
import { dayMs, reachMs, type Stretch, ZoneClock } from "./zone-clock.js";

export const secondMs = 1_000;
const minuteMs = 60_000;
const hourMs = 3_600_000;

/**
 * Years that are searched. A date comes again within 40 years, if at all: the 29th of February on a certain weekday may
 * take so long around a year such as 2100, which has none.
 */
const searchedYears = 41;

/** Bit of croner for the last weekday of its kind in a month; lower bits are for the first to the fifth. */
const lastOfMonth = 32;

/** Invalid cron expression or time zone. The message gives the reason without the value. */
export class RefusedTimes extends Error {
  readonly path: "cron" | "timezone";

  constructor(path: "cron" | "timezone", message: string, cause: unknown) {
    super(message, { cause });
    this.path = path;
  }
}

/** Converts what croner throws. */
function refusedCron(cause: unknown): RefusedTimes {
  const why = cause instanceof Error ? cause.message.replace(/^Cron[A-Za-z]+: /, "") : String(cause);
  return new RefusedTimes("cron", why, cause);
}

/** Times of a cron expression. All times are in ms since 1970. */
export class CronTimes {
  readonly #zone: ZoneClock;
  readonly #pattern: CronPattern;
  /** Results of {@link matchingDays}. */
  readonly #days: number[] = [];
  /** False if no calendar has the date, as the 30th of February. */
  readonly #hasDate: boolean;

  /** @throws RefusedTimes */
  constructor(cron: string, timezone: string) {
    try {
      this.#zone = ZoneClock.of(timezone);
    } catch (cause) {
      throw new RefusedTimes("timezone", "is not a time zone that Node.js knows", cause);
    }
    try {
      this.#pattern = new CronPattern(cron, undefined, { mode: "5-or-6-parts", fixedTimeRule: "no-wildcard" });
      // A list of 10,000 elements for an expression without years.
      this.#pattern.year = [];
    } catch (cause) {
      throw refusedCron(cause);
    }
    this.#hasDate = this.#shownFrom(0) < Number.POSITIVE_INFINITY;
  }

  /** First occurrence after a time; undefined if there is none. */
  after(time: number): number | undefined {
    if (!this.#hasDate) return undefined;
    let from = Math.floor(time / secondMs + 1) * secondMs;
    const until = from + searchedYears * 366 * dayMs;
    while (from < until) {
      const stretch = this.#zone.stretchAt(from);
      const found = this.#within(stretch, from);
      if (found !== undefined) return found;
      const { end, after: offset } = stretch;
      // A clock that changes meanwhile shows it up to `reachMs` earlier, and may show times before `end` again.
      const shown = this.#shownFrom(end + offset - reachMs);
      from = Math.max(end, shown - offset - reachMs);
    }
    return undefined;
  }

  /** Last occurrence before `end`. Requires at least one between `start` and `end`. All times are in whole seconds. */
  lastBefore(start: number, end: number): number {
    // Bisection, because a loop over all missed occurrences of a long time could take hours.
    let [low, high] = [start, end];
    while (high - low > secondMs) {
      const middle = low + Math.floor((high - low) / 2 / secondMs) * secondMs;
      if ((this.after(middle) ?? end) < end) low = middle;
      else high = middle;
    }
    return this.after(low)!;
  }

  /** First occurrence from a time to the end of its stretch. */
  #within({ end, change, before, after }: Stretch, from: number): number | undefined {
    const { isFixedTime } = this.#pattern;
    if (from < change) {
      const shown = this.#shownFrom(from + before);
      if (shown < Math.min(change, end) + before) return shown - before;
    }
    if (change >= end) return undefined;
    const isSkipped = isFixedTime && from <= change && this.#shownFrom(change + before) < change + after;
    if (isSkipped) return change;
    // Fixed times do not occur again when they are shown again.
    const first = isFixedTime ? Math.max(change, change + before - after) : change;
    const shown = this.#shownFrom(Math.max(from, first) + after);
    return shown < end + after ? shown - after : undefined;
  }

  /**
   * First matching date and time that a clock shows, at or after another. Both are in ms since 1970 of a clock that
   * shows UTC. Infinity if there is none within the searched years.
   */
  #shownFrom(shown: number): number {
    const date = new Date(shown);
    const [year, month, today] = [date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate()];
    for (let nth = month; nth <= month + 12 * searchedYears; nth++) {
      if (this.#pattern.month[nth % 12] !== 1) continue;
      const first = Date.UTC(year, nth, 1);
      const length = (Date.UTC(year, nth + 1, 1) - first) / dayMs;
      const weekday = new Date(first).getUTCDay();
      let days = (this.#days[length * 7 + weekday] ??= matchingDays(this.#pattern, length, weekday));
      if (nth === month) {
        const midnight = first + (today - 1) * dayMs;
        const time = (days >> (today - 1)) & 1 ? this.#timeFrom(shown - midnight) : undefined;
        if (time !== undefined) return midnight + time;
        days &= -1 << today;
      }
      const lowest = 31 - Math.clz32(days & -days);
      if (lowest >= 0) return first + lowest * dayMs + this.#timeFrom(0)!;
    }
    return Number.POSITIVE_INFINITY;
  }

  /** First matching time of a day at or after another, both in ms since midnight; undefined if there is none. */
  #timeFrom(time: number): number | undefined {
    const { hour, minute, second } = this.#pattern;
    const firstHour = Math.floor(time / hourMs);
    for (let h = hour.indexOf(1, firstHour); h >= 0; h = hour.indexOf(1, h + 1)) {
      const firstMinute = h === firstHour ? Math.floor((time % hourMs) / minuteMs) : 0;
      for (let m = minute.indexOf(1, firstMinute); m >= 0; m = minute.indexOf(1, m + 1)) {
        const isFirst = h * hourMs + m * minuteMs <= time;
        const s = second.indexOf(1, isFirst ? Math.floor((time % minuteMs) / secondMs) : 0);
        if (s >= 0) return h * hourMs + m * minuteMs + s * secondMs;
      }
    }
    return undefined;
  }
}

/**
 * Days of a month that match, as bits, of which the lowest is the first day.
 *
 * @param length number of its days
 * @param firstWeekday weekday of its first day; 0 is Sunday
 */
function matchingDays(pattern: CronPattern, length: number, firstWeekday: number): number {
  const { day, dayOfWeek, nearestWeekdays, lastDayOfMonth, lastWeekday, starDOM, starDOW, useAndLogic } = pattern;
  const bit = (date: number): number => 1 << (date - 1);
  const weekdayOf = (date: number): number => (firstWeekday + date - 1) % 7;
  const nearestWorkday = (date: number): number => {
    if (weekdayOf(date) === 0) return date === length ? date - 2 : date + 1;
    if (weekdayOf(date) === 6) return date === 1 ? date + 2 : date - 1;
    return date;
  };
  let [byDate, byWeekday] = [0, 0];
  for (let date = 1; date <= length; date++) {
    if (day[date - 1] === 1) byDate |= bit(date);
    if (nearestWeekdays[date - 1] === 1) byDate |= bit(nearestWorkday(date));
    const nth = bit(Math.ceil(date / 7)) | (date + 7 > length ? lastOfMonth : 0);
    if (dayOfWeek[weekdayOf(date)]! & nth) byWeekday |= bit(date);
  }
  if (lastDayOfMonth) byDate |= bit(length);
  if (lastWeekday) byDate |= bit(nearestWorkday(length));
  if (starDOW) return byDate;
  return useAndLogic || starDOM ? byDate & byWeekday : byDate | byWeekday;
}
