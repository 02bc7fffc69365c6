/**
 * The occurrences of a schedule, and which of them are enqueued. It has no clock of its own.
 *
 * Croner says when a cron expression occurs. Of changes of clocks it has these rules. An expression with fixed times, which has no
 * `*` and no step in second, minute and hour, occurs once where the clock shows its time twice, and right behind the gap where the
 * clock leaves its time out. Any other expression goes by the time that passes: it occurs in both of two equal hours, and not in
 * one that is left out.
 */
import { Cron } from "croner";
import { namedRules } from "../../generated/ts/rules/named.js";
import { checkText, type Violation } from "../../generated/ts/rules/violation.js";
import { scheduleConstants } from "../../generated/ts/settings/outbox.js";
import { shortened } from "../errors/index.js";

const { lateMs } = scheduleConstants;
const secondMs = 1_000;
const mostProblemBytes = 900;

/** The occurrences that are enqueued of those that were missed. */
export type MissedPolicy = "one" | "all" | "none";

/** Times and policy of a schedule. */
export interface ScheduleTimes {
  readonly cron: string;
  readonly timezone: string;
  readonly missed: MissedPolicy;
  /** The occurrences after this time are still to come. Whole seconds. */
  readonly since: Date;
}

/** Occurrences to enqueue now, and the next one. */
export interface SchedulePlan {
  /** The times to enqueue, in their order. */
  readonly occurrences: readonly Date[];
  /** All occurrences up to this time are enqueued, or passed over as missed. */
  readonly upto: Date;
  /** The first occurrence after `upto`, which may be due already; undefined: there is none, as `problem` says. */
  readonly next: Date | undefined;
  readonly problem: string | undefined;
}

/** A cron expression or time zone that is refused. The message says why, without the value. */
class RefusedTimes extends Error {
  readonly path: "cron" | "timezone";

  constructor(path: "cron" | "timezone", message: string, cause: unknown) {
    super(message, { cause });
    this.path = path;
  }
}

function refused(cause: unknown): RefusedTimes {
  const why = cause instanceof Error ? cause.message.replace(/^Cron[A-Za-z]+: /, "") : String(cause);
  return new RefusedTimes("cron", why, cause);
}

/** Canonical names of time zones, by the name that was given: asking takes as long as all else of a plan. */
const canonicalZones = new Map<string, string>();
const mostZones = 1_000;

/**
 * The name by which Node.js knows a time zone. Croner keeps much for each name that it is given, for ever, and there are thousands of
 * ways to write one in capitals and small letters.
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
    throw new RefusedTimes("timezone", "is no time zone that Node.js knows", cause);
  }
}

/** The times of a cron expression. */
class CronTimes {
  readonly #cron: Cron;

  /** @throws RefusedTimes */
  constructor(cron: string, timezone: string) {
    const zone = canonicalZone(timezone);
    try {
      this.#cron = new Cron(cron, { timezone: zone, paused: true, mode: "5-or-6-parts", fixedTimeRule: "no-wildcard" });
    } catch (cause) {
      throw refused(cause);
    }
  }

  /** The first occurrence after a time, in milliseconds since 1970; undefined: there is none. @throws RefusedTimes */
  after(time: number): number | undefined {
    let next: number | undefined;
    try {
      next = this.#cron.nextRun(new Date(time))?.getTime();
    } catch (cause) {
      throw refused(cause);
    }
    return next !== undefined && next > time ? next : undefined;
  }

  /** The last occurrence before `end`, where there is one after `start` and before `end`. Both in whole seconds. */
  lastBefore(start: number, end: number): number {
    // Bisection: walking over all that were missed in a long time could take hours.
    let [low, high] = [start, end];
    while (high - low > secondMs) {
      const middle = low + Math.floor((high - low) / 2 / secondMs) * secondMs;
      if ((this.after(middle) ?? end) < end) low = middle;
      else high = middle;
    }
    return this.after(low)!;
  }
}

/** Expressions that were parsed lately, by time zone and text: parsing one takes as long as an answer, for each plan of a schedule. */
const knownTimes = new Map<string, CronTimes>();
const mostKnownTimes = 200;

/** Parses an expression, or returns it as it was parsed before. @throws RefusedTimes */
function parsedTimes(cron: string, timezone: string): CronTimes {
  // No name of a time zone has a space.
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
 * Why a schedule cannot have this expression, or this time zone; undefined: it can.
 *
 * @param now for whether it will ever occur
 */
export function checkTimes(cron: string, timezone: string, now: Date): Violation | undefined {
  const broken =
    checkText("cron", namedRules.scheduleCron, cron) ?? checkText("timezone", namedRules.scheduleTimezone, timezone);
  if (broken !== undefined) return broken;
  try {
    if (new CronTimes(cron, timezone).after(now.getTime()) !== undefined) return undefined;
    return { path: "cron", value: JSON.stringify(cron), rule: "must occur", remedy: "Give a date that there is." };
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
 * The occurrences to enqueue now. One that is more than `lateMs` late was missed, and the policy says whether it is enqueued. All
 * others are.
 *
 * @param limit how many at most; the rest is planned behind `upto`
 */
export function planOccurrences(schedule: ScheduleTimes, now: Date, limit: number): SchedulePlan {
  const { cron, timezone, since } = schedule;
  try {
    return planOf(parsedTimes(cron, timezone), schedule, now, limit);
  } catch (error) {
    // One schedule holds up no others.
    const { path, message } = error instanceof RefusedTimes ? error : refused(error);
    const why = `${path} ${JSON.stringify(path === "cron" ? cron : timezone)}: ${message}`;
    return { occurrences: [], upto: since, next: undefined, problem: problemOf(why) };
  }
}

function planOf(times: CronTimes, { cron, missed, since }: ScheduleTimes, now: Date, limit: number): SchedulePlan {
  const occurrences: Date[] = [];
  let upto = since.getTime();
  let next = times.after(upto);
  // The first time that was not missed.
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
  return { ...done, next: undefined, problem: problemOf(`cron ${JSON.stringify(cron)} does not occur any more`) };
}

/** As the column takes it. */
function problemOf(why: string): string {
  return `${shortened(why, mostProblemBytes)}. Call hawser.schedule again, with another expression or time zone.`;
}
