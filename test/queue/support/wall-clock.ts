/**
 * The occurrences of cron expressions, found without the planner and its library: minute by minute, by what the clock of a time zone
 * shows according to `Intl`.
 */

const minuteMs = 60_000;
const dayMs = 86_400_000;

/** Wall clock of a time zone in each minute of a period. Clocks are changed at whole minutes, once in a day at most. */
export class WallClock {
  readonly #from: number;
  readonly #to: number;
  /** Times from which the clock has another offset from UTC, and the offset. The first is a day before the period. */
  readonly #changes: readonly (readonly [at: number, offset: number])[];
  #minutes: Minutes | undefined;

  /** @param from in milliseconds since 1970, at a whole minute, like `to` */
  constructor(timezone: string, from: number, to: number) {
    this.#from = from;
    this.#to = to;
    const offsetAt = offsetsOf(timezone);
    let offset = offsetAt(from - dayMs);
    const changes: [number, number][] = [[from - dayMs, offset]];
    for (let day = from - dayMs; day < to; day += dayMs) {
      if (offsetAt(day + dayMs) === offset) continue;
      let at = day;
      while (offsetAt(at) === offset) at += minuteMs;
      offset = offsetAt(at);
      changes.push([at, offset]);
    }
    this.#changes = changes;
  }

  /** Text for what the clock shows: clocks with equal ones show the same. */
  get changes(): string {
    return this.#changes.join(" ");
  }

  /** All occurrences of an expression, in their order. */
  occurrencesOf(cron: string): number[] {
    const { seconds, minutes, hours, days, months, weekdays, isFixed, isEitherDay } = fieldsOf(cron);
    const isDay = (day: number, month: number, weekday: number): boolean =>
      months.has(month) &&
      (isEitherDay ? days.has(day) || weekdays.has(weekday) : days.has(day) && weekdays.has(weekday));
    this.#minutes ??= minutesOf(this.#changes, this.#from, this.#to);
    const { minute, hour, day, month, weekday, isRepeated, gaps } = this.#minutes;
    const found: number[] = [];
    for (let nth = 0; nth < minute.length; nth++) {
      const at = this.#from + nth * minuteMs;
      const gap = gaps.get(nth);
      if (isFixed && gap !== undefined) {
        for (let shown = gap[0]; shown <= gap[1]; shown++) {
          const date = new Date(shown * minuteMs);
          const matches = minutes.has(date.getUTCMinutes()) && hours.has(date.getUTCHours());
          if (!matches || !isDay(date.getUTCDate(), date.getUTCMonth() + 1, date.getUTCDay())) continue;
          found.push(at);
          break;
        }
      }
      if (!minutes.has(minute[nth]!) || !hours.has(hour[nth]!)) continue;
      if (!isDay(day[nth]!, month[nth]!, weekday[nth]!)) continue;
      if (isFixed && isRepeated[nth] === 1) continue;
      for (const second of seconds) if (found.at(-1) !== at + second * 1_000) found.push(at + second * 1_000);
    }
    return found;
  }
}

/** What a clock shows in each minute of a period. */
interface Minutes {
  readonly minute: Uint8Array;
  readonly hour: Uint8Array;
  readonly day: Uint8Array;
  readonly month: Uint8Array;
  readonly weekday: Uint8Array;
  /** The clock has shown this minute before. */
  readonly isRepeated: Uint8Array;
  /** By the minute behind it: what the clock has left out, in minutes since 1970 of a clock that shows UTC. */
  readonly gaps: ReadonlyMap<number, readonly [number, number]>;
}

function minutesOf(changes: readonly (readonly [number, number])[], from: number, to: number): Minutes {
  const [minute, hour, day, month, weekday, isRepeated] = Array.from(
    { length: 6 },
    () => new Uint8Array((to - from) / minuteMs),
  ) as [...[Uint8Array, Uint8Array, Uint8Array], ...[Uint8Array, Uint8Array, Uint8Array]];
  const gaps = new Map<number, readonly [number, number]>();
  // A day before, so that what is repeated at the beginning is known.
  let last = (from - dayMs + changes[0]![1]) / minuteMs;
  let most = last;
  let date = new Date(0);
  for (const [nthChange, [start, offset]] of changes.entries()) {
    const end = Math.min(changes[nthChange + 1]?.[0] ?? to, to);
    for (let at = start; at < end; at += minuteMs) {
      const shown = (at + offset) / minuteMs;
      if (at >= from) {
        const nth = (at - from) / minuteMs;
        if (shown > last + 1) gaps.set(nth, [last + 1, shown - 1]);
        isRepeated[nth] = shown <= most ? 1 : 0;
        const midnight = Math.floor(shown / 1_440) * dayMs;
        if (date.getTime() !== midnight) date = new Date(midnight);
        minute[nth] = shown % 60;
        hour[nth] = Math.floor((shown % 1_440) / 60);
        day[nth] = date.getUTCDate();
        month[nth] = date.getUTCMonth() + 1;
        weekday[nth] = date.getUTCDay();
      }
      last = shown;
      most = Math.max(most, shown);
    }
  }
  return { minute, hour, day, month, weekday, isRepeated, gaps };
}

/** Offset of a time zone's clock from UTC, in milliseconds. */
function offsetsOf(timezone: string): (at: number) => number {
  const format = new Intl.DateTimeFormat("en-US", {
    timeZone: timezone,
    hourCycle: "h23",
    year: "numeric",
    month: "numeric",
    day: "numeric",
    hour: "numeric",
    minute: "numeric",
  });
  return (at) => {
    const [month, day, year, hour, minute] = format.format(at).match(/\d+/g)!.map(Number);
    return Date.UTC(year!, month! - 1, day, hour, minute) - at;
  };
}

interface Fields {
  readonly seconds: readonly number[];
  readonly minutes: ReadonlySet<number>;
  readonly hours: ReadonlySet<number>;
  readonly days: ReadonlySet<number>;
  readonly months: ReadonlySet<number>;
  readonly weekdays: ReadonlySet<number>;
  /** The expression has fixed times of the day. */
  readonly isFixed: boolean;
  /** A day of the month or a day of the week is enough: both are given. */
  readonly isEitherDay: boolean;
}

/** Reads numbers, `*`, lists, ranges and steps. */
function fieldsOf(cron: string): Fields {
  const parts = cron.split(" ");
  const [second, minute, hour, day, month, weekday] = (parts.length === 5 ? ["0", ...parts] : parts) as [
    ...[string, string, string],
    ...[string, string, string],
  ];
  return {
    seconds: [...valuesOf(second, 0, 59)].sort((one, other) => one - other),
    minutes: valuesOf(minute, 0, 59),
    hours: valuesOf(hour, 0, 23),
    days: valuesOf(day, 1, 31),
    months: valuesOf(month, 1, 12),
    weekdays: new Set([...valuesOf(weekday, 0, 7)].map((value) => value % 7)),
    isFixed: !/[*/]/.test(`${second} ${minute} ${hour}`),
    isEitherDay: day !== "*" && weekday !== "*",
  };
}

function valuesOf(field: string, low: number, high: number): Set<number> {
  const values = new Set<number>();
  for (const part of field.split(",")) {
    const [range, step = "1"] = part.split("/") as [string, string?];
    const [from, to = from] = range === "*" ? [low, high] : range.split("-").map(Number);
    for (let value = from!; value <= to!; value += Number(step)) values.add(value);
  }
  return values;
}
