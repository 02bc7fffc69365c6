/**
 * Schedules: enqueues what is due of them. Any process may do that, also several at a time: the transaction that enqueues an
 * occurrence stores the next one, and does nothing for a schedule that is not as it was when its occurrences were planned. The
 * process that relays messages for peers does it, so that not all ask all the time.
 *
 * Times are those of the clock of Postgres.
 */
import { setImmediate } from "node:timers/promises";
import type { SchedulerFunctions } from "../../generated/ts/rows/outbox.js";
import { scheduleConstants } from "../../generated/ts/settings/outbox.js";
import { type MissedPolicy, planOccurrences, type SchedulePlan } from "./occurrences.js";

const { pageSchedules, pageOccurrences, pageMessages, pageBytes, retryMs, checkMs } = scheduleConstants;

/** So many schedules are planned before others get the processor. */
const plannedAtOnce = 10;

/** Most schedules of one transaction. */
const runAtOnce = 100;

type DueRow = Awaited<ReturnType<SchedulerFunctions["dueSchedules"]>>[number];

/**
 * Enqueues what is due.
 *
 * @param isOver asked now and then whether to end early
 * @returns in how many milliseconds there may be something to do again; Infinity: not before a schedule is made or changed
 * @throws the error of Postgres
 */
export async function runDueSchedules(functions: SchedulerFunctions, isOver: () => boolean): Promise<number> {
  const rows = await functions.dueSchedules({ limit: pageSchedules });
  const { asOf, dueInMs } = rows.pop()!;
  let inMs = dueInMs === null ? Number.POSITIVE_INFINITY : Number(dueInMs);
  let anyRan = false;
  let batch: object[] = [];
  let [messages, bytes] = [0, 0];
  const flush = async (): Promise<void> => {
    const { ran } = await functions.runSchedules({ runs: JSON.stringify(batch) });
    // Another process had them first, or their owner is about to change them.
    if (ran < batch.length) inMs = Math.min(inMs, retryMs);
    anyRan ||= ran > 0;
    batch = [];
    [messages, bytes] = [0, 0];
  };
  for (const [nth, row] of rows.entries()) {
    if (isOver()) return 0;
    if (nth % plannedAtOnce === plannedAtOnce - 1) await setImmediate();
    const { cron, timezone, missed, since } = row;
    const limit = Math.max(1, Math.min(pageOccurrences, Math.floor(pageBytes / Math.max(1, row.payloadBytes!))));
    const times = { cron: cron!, timezone: timezone!, missed: missed as MissedPolicy, since: since! };
    const plan = planOccurrences(times, asOf!, limit);
    if (plan.next !== undefined) inMs = Math.min(inMs, Math.max(0, plan.next.getTime() - asOf!.getTime()));
    batch.push(runOf(row, plan));
    messages += plan.occurrences.length;
    bytes += plan.occurrences.length * row.payloadBytes!;
    if (messages >= pageMessages || bytes >= pageBytes || batch.length >= runAtOnce) await flush();
  }
  if (batch.length > 0) await flush();
  // Where all are locked, the same would be planned over and over.
  return rows.length > 0 && !anyRan ? Math.max(inMs, retryMs) : inMs;
}

/** A plan as `hawser.run_schedules` reads it. */
function runOf({ role, name, revision, since }: DueRow, plan: SchedulePlan): object {
  const { occurrences, upto, next, problem } = plan;
  return { role, name, revision: String(revision), since, upto, next_at: next, times: occurrences, problem };
}

/** When a process looks for schedules that are due. It has no clock of its own. */
export class SchedulePace {
  readonly #mostMs: number;
  #at = Number.NEGATIVE_INFINITY;
  #isOut = false;
  #wasChanged = false;

  /** @param unnotifiedMs how often it looks, where changes of schedules do not notify it; undefined: they do */
  constructor(unnotifiedMs: number | undefined) {
    this.#mostMs = unnotifiedMs ?? Number.POSITIVE_INFINITY;
  }

  /** A look has begun, and has not ended. */
  get isOut(): boolean {
    return this.#isOut;
  }

  /** When the next look begins; Infinity: not before something happens. */
  get at(): number {
    return this.#isOut ? Number.POSITIVE_INFINITY : this.#at;
  }

  /** A schedule was made or changed. */
  changed(): void {
    this.#wasChanged = true;
    this.#at = Number.NEGATIVE_INFINITY;
  }

  beginLook(): void {
    this.#isOut = true;
    this.#wasChanged = false;
  }

  /** @param inMs when there may be something to do again; Infinity: there is no schedule */
  endLook(now: number, inMs: number): void {
    this.#isOut = false;
    if (this.#wasChanged) return;
    // The clock of Postgres may be set meanwhile.
    this.#at = now + Math.min(inMs === Number.POSITIVE_INFINITY ? inMs : Math.min(inMs, checkMs), this.#mostMs);
  }
}
