/** Occurrences of a schedule, and which of them are enqueued. Pure functions without a clock. */
import { namedRules } from "../../../../generated/ts/rules/named.js";
import { checkText, type Violation } from "../../../../generated/ts/rules/violation.js";
import { CronTimes, RefusedTimes, secondMs } from "./cron-times.js";

/** An occurrence that is brought in later than this was missed. */
export const lateMs = 10_000;

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
  readonly problem: ScheduleProblem | undefined;
}

/** Part of a schedule that cannot be read, or `never` if it has no further occurrence. */
type ScheduleProblem = RefusedTimes["path"] | "never";

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
    return {
      path: "cron",
      value: JSON.stringify(cron),
      rule: "must occur",
      remedy: "Give a date and time that exist.",
    };
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
    const problem = error instanceof RefusedTimes ? error.path : "cron";
    return { occurrences: [], upto: since, next: undefined, problem };
  }
}

function planOf(times: CronTimes, { missed, since }: ScheduleTimes, now: Date, limit: number): SchedulePlan {
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
  return { ...done, next: undefined, problem: "never" };
}
