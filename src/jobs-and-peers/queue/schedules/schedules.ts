/**
 * Enqueues due occurrences of schedules. Several processes may do so at the same time: the transaction that enqueues an
 * occurrence also stores the next one, and does nothing if the schedule changed since it was planned.
 *
 * All times are those of the Postgres clock.
 */
import { setImmediate } from "node:timers/promises";
import type { SchedulerFunctions } from "../../../../generated/ts/rows/queue.js";
import { scheduleConstants } from "../../../../generated/ts/settings/queue.js";
import { type MissedPolicy, planOccurrences, type SchedulePlan } from "./occurrences.js";

const { pageOccurrences } = scheduleConstants;
/** Maximum number of due schedules that one statement reads. Each role has its share. */
export const pageSchedules = 1_000;
/** About how many of all schedules. */
const pageMessages = 1_000;
/** About how many bytes of payload that may be. One message always fits. */
const pageBytes = 8 * 1024 * 1024;
/** Pause before a schedule is read again that another transaction was about to change. */
export const retryMs = 1_000;
/** Longest wait for the next occurrence before Postgres is asked again, whose clock may be set meanwhile. */
const checkMs = 10_000;

/**
 * Time in ms that the schedules of a role may take in one call: planning, and the role's part of the transactions. At
 * least one of them is planned; those behind are left for the next call, which begins with the earliest of each role.
 */
const turnMs = 100;

/** Planning time in ms after which other tasks of the event loop run. */
const unbrokenMs = 5;

/** About how many bytes a row takes besides its payload. */
const rowBytes = 1_000;

/** Maximum number of schedules per transaction. */
const runAtOnce = 100;

type DueRow = Awaited<ReturnType<SchedulerFunctions["dueSchedules"]>>[number];

/**
 * Enqueues due occurrences. Roles choose how many schedules there are and what they cost, so that each role has a limited
 * time: however many it has, the schedules of others wait no longer than that.
 *
 * @param isOver checked regularly; true ends the call early
 * @param now monotonic clock in ms
 * @returns ms until the next call is needed; Infinity if only a change of a schedule can make one due
 * @throws the error of Postgres
 */
export async function runDueSchedules(
  functions: SchedulerFunctions,
  isOver: () => boolean,
  now: () => number = () => performance.now(),
): Promise<number> {
  const rows = await functions.dueSchedules({ limit: pageSchedules });
  const { asOf, dueInMs } = rows.pop()!;
  let inMs = dueInMs === null ? Number.POSITIVE_INFINITY : Number(dueInMs);
  let anyRan = false;
  const spentMs = new Map<string, number>();
  let batch: object[] = [];
  /** Shares of the roles in the time of the batch: about how many bytes they write. */
  const written = new Map<string, number>();
  let [messages, bytes] = [0, 0];
  let unbrokenSince = now();
  const flush = async (): Promise<void> => {
    const begunAt = now();
    const { ran } = await functions.runSchedules({ runs: JSON.stringify(batch) });
    unbrokenSince = now();
    const msOfByte = (unbrokenSince - begunAt) / [...written.values()].reduce((sum, share) => sum + share);
    for (const [role, share] of written) add(spentMs, role, share * msOfByte);
    written.clear();
    // Another process was first, or the owner is changing these schedules.
    if (ran < batch.length) inMs = Math.min(inMs, retryMs);
    anyRan ||= ran > 0;
    batch = [];
    [messages, bytes] = [0, 0];
  };
  for (const row of rows) {
    if (isOver()) return 0;
    const role = row.role!;
    if ((spentMs.get(role) ?? 0) >= turnMs) {
      inMs = 0;
      continue;
    }
    const begunAt = now();
    const { cron, timezone, missed, since } = row;
    const limit = Math.max(1, Math.min(pageOccurrences, Math.floor(pageBytes / Math.max(1, row.payloadBytes!))));
    const times = { cron: cron!, timezone: timezone!, missed: missed as MissedPolicy, since: since! };
    const plan = planOccurrences(times, asOf!, limit);
    inMs = Math.min(inMs, plan.next === undefined ? checkMs : Math.max(0, plan.next.getTime() - asOf!.getTime()));
    batch.push(runOf(row, plan));
    messages += plan.occurrences.length;
    bytes += plan.occurrences.length * row.payloadBytes!;
    add(written, role, rowBytes + plan.occurrences.length * (rowBytes + row.payloadBytes!));
    const endedAt = now();
    add(spentMs, role, endedAt - begunAt);
    if (messages >= pageMessages || bytes >= pageBytes || batch.length >= runAtOnce) await flush();
    else if (endedAt - unbrokenSince >= unbrokenMs) {
      await setImmediate();
      unbrokenSince = now();
    }
  }
  if (batch.length > 0) await flush();
  // If all due schedules are locked, an immediate retry would plan the same again.
  return rows.length > 0 && !anyRan ? Math.max(inMs, retryMs) : inMs;
}

function add(sums: Map<string, number>, role: string, value: number): void {
  sums.set(role, (sums.get(role) ?? 0) + value);
}

/** Converts a plan to the JSON format of `hawser.run_schedules`. */
function runOf({ role, name, revision, since }: DueRow, plan: SchedulePlan): object {
  const { occurrences, upto, next, problem } = plan;
  return { role, name, revision: String(revision), since, upto, next_at: next, times: occurrences, problem };
}
