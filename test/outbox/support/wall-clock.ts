/**
 * The occurrences of cron expressions, found without the planner and its library: minute by minute, by what the clock of a time zone
 * shows according to `Intl`.
 */

const minuteMs = 60_000;
const slotMs = 15 * minuteMs;
const dayMs = 86_400_000;

/** Wall clock of a time zone in each minute of a period. Clocks are changed at quarters of an hour. */
export class WallClock {
  readonly #from: number;
  readonly #minute: Uint8Array;
  readonly #hour: Uint8Array;
  readonly #day: Uint8Array;
  readonly #month: Uint8Array;
  readonly #weekday: Uint8Array;
  /** The clock has shown this minute before. */
  readonly #isRepeated: Uint8Array;
  /** By the minute behind it: what the clock has left out, in minutes since 1970 of a clock that shows UTC. */
  readonly #gaps = new Map<number, readonly [number, number]>();

  /** @param from in milliseconds since 1970, at a quarter of an hour, like `to` */
  constructor(timezone: string, from: number, to: number) {
    const count = (to - from) / minuteMs;
    [this.#minute, this.#hour, this.#day, this.#month, this.#weekday, this.#isRepeated] = Array.from(
      { length: 6 },
      () => new Uint8Array(count),
    ) as [Uint8Array, Uint8Array, Uint8Array, Uint8Array, Uint8Array, Uint8Array];
    this.#from = from;
    const offsetAt = offsetsOf(timezone);
    // A day before, so that what is repeated at the beginning is known.
    let last = Math.floor((from - dayMs + offsetAt(from - dayMs)) / minuteMs);
    let most = last;
    for (let slot = from - dayMs; slot < to; slot += slotMs) {
      const offset = offsetAt(slot);
      for (let minute = slot; minute < slot + slotMs; minute += minuteMs) {
        const shown = (minute + offset) / minuteMs;
        if (minute >= from) {
          const nth = (minute - from) / minuteMs;
          if (shown > last + 1) this.#gaps.set(nth, [last + 1, shown - 1]);
          this.#isRepeated[nth] = shown <= most ? 1 : 0;
          const date = new Date(shown * minuteMs);
          this.#minute[nth] = date.getUTCMinutes();
          this.#hour[nth] = date.getUTCHours();
          this.#day[nth] = date.getUTCDate();
          this.#month[nth] = date.getUTCMonth() + 1;
          this.#weekday[nth] = date.getUTCDay();
        }
        last = shown;
        most = Math.max(most, shown);
      }
    }
  }

  /** All occurrences of an expression, in their order. */
  occurrencesOf(cron: string): number[] {
    const { seconds, minutes, hours, days, months, weekdays, isFixed, isEitherDay } = fieldsOf(cron);
    const isDay = (day: number, month: number, weekday: number): boolean =>
      months.has(month) &&
      (isEitherDay ? days.has(day) || weekdays.has(weekday) : days.has(day) && weekdays.has(weekday));
    const found: number[] = [];
    for (let nth = 0; nth < this.#minute.length; nth++) {
      const at = this.#from + nth * minuteMs;
      const gap = this.#gaps.get(nth);
      if (isFixed && gap !== undefined) {
        for (let shown = gap[0]; shown <= gap[1]; shown++) {
          const date = new Date(shown * minuteMs);
          const matches = minutes.has(date.getUTCMinutes()) && hours.has(date.getUTCHours());
          if (!matches || !isDay(date.getUTCDate(), date.getUTCMonth() + 1, date.getUTCDay())) continue;
          found.push(at);
          break;
        }
      }
      if (!minutes.has(this.#minute[nth]!) || !hours.has(this.#hour[nth]!)) continue;
      if (!isDay(this.#day[nth]!, this.#month[nth]!, this.#weekday[nth]!)) continue;
      if (isFixed && this.#isRepeated[nth] === 1) continue;
      for (const second of seconds) if (found.at(-1) !== at + second * 1_000) found.push(at + second * 1_000);
    }
    return found;
  }
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
