/**
 * Occurrences of a schedule, and which of them are enqueued. Pure functions without a clock.
 *
 * Croner evaluates cron expressions. Its rules for daylight-saving changes: an expression with fixed times (no `*` and
 * no step in second, minute and hour) occurs once if its time exists twice, and right after the gap if its time does
 * not exist. All other expressions follow elapsed time: they occur in both repeated hours and not in a skipped hour.
 */
import { Cron } from "croner";
import { namedRules } from "../../generated/ts/rules/named.js";
import { checkText, type Violation } from "../../generated/ts/rules/violation.js";
import { shortened } from "../errors/index.js";

/** An occurrence that is brought in later than this was missed. */
export const lateMs = 10_000;
const secondMs = 1_000;
const mostProblemBytes = 900;

/** Policy for missed occurrences: enqueue only the last one, all, or none. */
export type MissedPolicy = "one" | "all" | "none";

/** Times and policy of a schedule. */
export interface ScheduleTimes {
  readonly cron: string;
  readonly timezone: string;
  readonly missed: MissedPolicy;
  /** Occurrences after this time are still to be enqueued. Whole seconds. */
  readonly since: Date;
}

/** Occurrences to enqueue now, and the next one. */
export interface SchedulePlan {
  /** Times to enqueue, in order. */
  readonly occurrences: readonly Date[];
  /** Time up to which all occurrences are enqueued or skipped as missed. */
  readonly upto: Date;
  /**
   * First occurrence after `upto`, which may already be due; undefined if there is none, for the reason in `problem`.
   */
  readonly next: Date | undefined;
  readonly problem: string | undefined;
}

/** Invalid cron expression or time zone. The message gives the reason without the value. */
class RefusedTimes extends Error {
  readonly path: "cron" | "timezone";

  constructor(path: "cron" | "timezone", message: string, cause: unknown) {
    super(message, { cause });
    this.path = path;
  }
}

function refusedCron(cause: unknown): RefusedTimes {
  const why = cause instanceof Error ? cause.message.replace(/^Cron[A-Za-z]+: /, "") : String(cause);
  return new RefusedTimes("cron", why, cause);
}

/** Canonical time-zone names by given name. A lookup in Node.js takes as long as the rest of a plan. */
const canonicalZones = new Map<string, string>();
const mostZones = 1_000;

/**
 * Canonical name of a time zone in Node.js. Croner caches data per name forever, and thousands of upper- and lowercase
 * variants of one name are valid.
 *
 * @throws RefusedTimes
 */
function canonicalZone(timezone: string): string {
  const known = canonicalZones.get(timezone);
  if (known !== undefined) return known;
  try {
    const { timeZone } = new Intl.DateTimeFormat("en", { timeZone: timezone }).resolvedOptions();
    if (canonicalZones.size >= mostZones) canonicalZones.clear();
    canonicalZones.set(timezone, timeZone);
    return timeZone;
  } catch (cause) {
    throw new RefusedTimes("timezone", "is not a time zone that Node.js knows", cause);
  }
}

/** Times of a cron expression. */
class CronTimes {
  readonly #cron: Cron;

  /** @throws RefusedTimes */
  constructor(cron: string, timezone: string) {
    const zone = canonicalZone(timezone);
    try {
      this.#cron = new Cron(cron, { timezone: zone, paused: true, mode: "5-or-6-parts", fixedTimeRule: "no-wildcard" });
    } catch (cause) {
      throw refusedCron(cause);
    }
  }

  /** First occurrence after a time, in ms since 1970; undefined if there is none. @throws RefusedTimes */
  after(time: number): number | undefined {
    let next: number | undefined;
    try {
      next = this.#cron.nextRun(new Date(time))?.getTime();
    } catch (cause) {
      throw refusedCron(cause);
    }
    return next !== undefined && next > time ? next : undefined;
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
}

/** Recently parsed expressions, by time zone and text. Parsing takes about as long as a database round trip. */
const knownTimes = new Map<string, CronTimes>();
const mostKnownTimes = 200;

/** Parses an expression, with a cache. @throws RefusedTimes */
function parsedTimes(cron: string, timezone: string): CronTimes {
  // Time-zone names contain no space.
  const key = `${timezone} ${cron}`;
  let times = knownTimes.get(key);
  if (times === undefined) {
    times = new CronTimes(cron, timezone);
    if (knownTimes.size >= mostKnownTimes) knownTimes.clear();
    knownTimes.set(key, times);
  }
  return times;
}

/**
 * Checks the expression and time zone of a schedule. Returns the violation; undefined if both are valid.
 *
 * @param now current time, to check that the expression will ever occur
 */
export function checkTimes(cron: string, timezone: string, now: Date): Violation | undefined {
  const broken =
    checkText("cron", namedRules.scheduleCron, cron) ?? checkText("timezone", namedRules.scheduleTimezone, timezone);
  if (broken !== undefined) return broken;
  try {
    if (new CronTimes(cron, timezone).after(now.getTime()) !== undefined) return undefined;
    return { path: "cron", value: JSON.stringify(cron), rule: "must occur", remedy: "Give a date that exists." };
  } catch (error) {
    if (!(error instanceof RefusedTimes)) throw error;
    return error.path === "cron"
      ? {
          path: "cron",
          value: JSON.stringify(cron),
          rule: `must be a cron expression, and it is not: ${error.message}`,
          remedy: 'Give one such as "0 3 * * *".',
        }
      : {
          path: "timezone",
          value: JSON.stringify(timezone),
          rule: "must be a time zone that Node.js knows",
          remedy: 'Give a name such as "Europe/Berlin".',
        };
  }
}

/**
 * Plans the occurrences to enqueue now. An occurrence more than `lateMs` late is missed and subject to the policy. All
 * others are enqueued.
 *
 * @param limit maximum number of occurrences; the rest is planned later, from `upto`
 */
export function planOccurrences(schedule: ScheduleTimes, now: Date, limit: number): SchedulePlan {
  const { cron, timezone, since } = schedule;
  try {
    return planOf(parsedTimes(cron, timezone), schedule, now, limit);
  } catch (error) {
    // An invalid schedule must not block the others.
    const { path, message } = error instanceof RefusedTimes ? error : refusedCron(error);
    const why = `${path} ${JSON.stringify(path === "cron" ? cron : timezone)}: ${message}`;
    return { occurrences: [], upto: since, next: undefined, problem: problemOf(why) };
  }
}

function planOf(times: CronTimes, { cron, missed, since }: ScheduleTimes, now: Date, limit: number): SchedulePlan {
  const occurrences: Date[] = [];
  let upto = since.getTime();
  let next = times.after(upto);
  // Earliest time that does not count as missed.
  const onTime = Math.ceil((now.getTime() - lateMs) / secondMs) * secondMs;
  if (missed !== "all" && next !== undefined && next < onTime) {
    upto = missed === "one" ? times.lastBefore(upto, onTime) : onTime - secondMs;
    if (missed === "one") occurrences.push(new Date(upto));
    next = times.after(upto);
  }
  while (next !== undefined && next <= now.getTime() && occurrences.length < limit) {
    occurrences.push(new Date(next));
    upto = next;
    next = times.after(upto);
  }
  const done = { occurrences, upto: new Date(upto) };
  if (next !== undefined) return { ...done, next: new Date(next), problem: undefined };
  return { ...done, next: undefined, problem: problemOf(`cron ${JSON.stringify(cron)} has no further occurrence`) };
}

/** Text for the column `problem`. */
function problemOf(why: string): string {
  return `${shortened(why, mostProblemBytes)}. Call hawser.schedule again, with another expression or time zone.`;
}
