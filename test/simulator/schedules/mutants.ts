/** Departures from the rules of schedules, each of which the simulator must catch: they show that it can fail. */
import { planOccurrences, type SchedulePlan } from "../../../src/outbox/occurrences.js";

/** Faults inside Postgres. */
export interface StoreFaults {
  readonly noCompare?: boolean;
  readonly noRevision?: boolean;
  readonly goesOnFromNow?: boolean;
}

/** Parts of a run that a mutant replaces. */
export interface ScheduleMutant {
  readonly plan?: typeof planOccurrences;
  readonly store?: StoreFaults;
  /** Enqueues in one transaction, and stores the next occurrence in another. */
  readonly storesApart?: boolean;
  /** Plans by the clock of the process. */
  readonly ownClock?: boolean;
  readonly ignoresChanges?: boolean;
  readonly seeds?: number;
  readonly firstSeed?: number;
}

/** See {@link Simulation.mustHappen}. */
export const scheduleMustHappen: readonly string[] = [
  ...["kill", "stall", "outage", "failover", "lock", "change", "policy", "remove"].map((kind) => `fault: ${kind}`),
  "fault: answer lost",
  "fault: call lost before its commit",
  ...["one", "all", "none"].map((policy) => `transition: missed, ${policy}`),
  "transition: enqueued on time",
  "transition: had by another runner",
  "transition: more than a page",
  "transition: clock left a time out",
  "transition: clock showed a time twice",
];

/** The rules as they are. */
export const unchanged: ScheduleMutant = {};

const withTimes = (change: (plan: SchedulePlan, ...given: Parameters<typeof planOccurrences>) => SchedulePlan) => {
  return (...given: Parameters<typeof planOccurrences>) => change(planOccurrences(...given), ...given);
};

export const scheduleMutants: Readonly<Record<string, ScheduleMutant>> = {
  "enqueues without asking whether another process has": { store: { noCompare: true } },
  "enqueues what was planned before the schedule has changed": { firstSeed: 87, store: { noRevision: true } },
  "stores the next occurrence in a transaction of its own": { storesApart: true },
  "goes on behind the present time instead of the last occurrence": { store: { goesOnFromNow: true } },
  "loses the first of all that were missed": {
    plan: withTimes((plan, { missed }) => {
      const isLate = plan.occurrences.length > 1 && missed === "all";
      return isLate ? { ...plan, occurrences: plan.occurrences.slice(1) } : plan;
    }),
  },
  "enqueues all that were missed instead of one": {
    plan: ({ missed, ...times }, now, limit) =>
      planOccurrences({ ...times, missed: missed === "one" ? "all" : missed }, now, limit),
  },
  "enqueues the first of those that were missed instead of the last": {
    plan: ({ missed, ...times }, now, limit) => {
      if (missed !== "one") return planOccurrences({ ...times, missed }, now, limit);
      const { occurrences } = planOccurrences({ ...times, missed: "all" }, now, limit);
      const plan = planOccurrences({ ...times, missed }, now, limit);
      return { ...plan, occurrences: [...occurrences.slice(0, 1), ...plan.occurrences.slice(1)] };
    },
  },
  "enqueues what was missed although none is wanted": {
    plan: ({ missed, ...times }, now, limit) =>
      planOccurrences({ ...times, missed: missed === "none" ? "one" : missed }, now, limit),
  },
  "takes every clock for that of UTC": {
    plan: (times, now, limit) => planOccurrences({ ...times, timezone: "UTC" }, now, limit),
  },
  "goes by the clock of its machine": { ownClock: true },
  "does not look when a schedule has changed": { ignoresChanges: true },
};
