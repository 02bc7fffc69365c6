/**
 * The schedules of Postgres in memory, and processes that run them: what the SQL functions do, without roles and locks. The rules of
 * the functions themselves are in `test/queue/schedules.test.ts`.
 */
import { expect } from "vitest";
import { type SchedulerFunctions, schedulerFunctions } from "../../../generated/ts/rows/queue.js";
import { lateMs, type MissedPolicy } from "../../../src/jobs-and-peers/queue/schedules/occurrences.js";
import { runDueSchedules } from "../../../src/jobs-and-peers/queue/schedules/schedules.js";
import type { Random } from "../../simulator/random.js";

/** Payloads that a process enqueues at once. With the size of a schedule's payload, it limits its occurrences. */
const pageBytes = 8 * 1024 * 1024;
/** Nothing goes wrong in the last minute of a run. */
export const calmMs = 60_000;
/** Limit of an occurrence's delay while nothing is wrong. */
const promptMs = 5_000;

/** A row. Times are in milliseconds since 1970. */
interface Schedule {
  readonly name: string;
  readonly cron: string;
  readonly timezone: string;
  readonly missed: MissedPolicy;
  readonly since: number;
  /** -Infinity: it is to be computed; undefined: there is none. */
  readonly nextAt: number | undefined;
  readonly revision: number;
}

/** A transaction that has enqueued occurrences of a schedule, and stored the next one. */
interface Move {
  /** The row as it was. */
  readonly from: Schedule;
  readonly upto: number;
  /** The time, by the clock of Postgres, when the schedule was read. */
  readonly asOf: number;
  readonly times: readonly number[];
}

/** An element of the argument of `hawser.run_schedules`. */
interface Run {
  readonly name: string;
  readonly revision: string;
  readonly since: string;
  readonly upto: string;
  readonly next_at?: string;
  readonly times: readonly string[];
}

type Fate = "done" | "late" | "lost";

const sessionLost = new Error("the session was lost");

export class ScheduleStore {
  /** The clock of Postgres. That of the test's machine is years away. */
  now: number;
  readonly schedules = new Map<string, Schedule>();
  readonly moves: Move[] = [];
  /** Limit of occurrences of a schedule that are enqueued at once. */
  readonly limit: number;
  #late: (() => void)[] = [];
  #revisions = 0;

  constructor(now: number, limit: number) {
    this.now = now;
    this.limit = limit;
  }

  /** As `hawser.schedule`. */
  schedule(given: Omit<Schedule, "since" | "nextAt" | "revision">): void {
    const old = this.schedules.get(given.name);
    const isSame = old !== undefined && old.cron === given.cron && old.timezone === given.timezone;
    if (isSame && old.missed === given.missed) return;
    const since = isSame ? old.since : Math.floor(this.now / 1_000) * 1_000;
    const nextAt = isSame ? old.nextAt : Number.NEGATIVE_INFINITY;
    this.schedules.set(given.name, { ...given, since, nextAt, revision: ++this.#revisions });
  }

  /** Functions of a process. `fate` says what becomes of its transaction. */
  functions(fate: Fate): SchedulerFunctions {
    let asOf = 0;
    return schedulerFunctions({
      query: async ({ name, values: [value] }) => {
        if (name === "hawser.due_schedules") {
          asOf = Math.floor(this.now);
          return { rows: this.#due(Number(value), asOf) };
        }
        const runs = JSON.parse(String(value)) as readonly Run[];
        if (fate === "done") return { rows: [this.#run(runs, asOf)] };
        if (fate === "late") this.#late.push(() => this.#run(runs, asOf));
        throw sessionLost;
      },
    });
  }

  /** Transactions whose answer was lost land now. */
  landLate(): void {
    for (const land of this.#late.splice(0)) land();
  }

  /** As `hawser.due_schedules`. */
  #due(limit: number, asOf: number) {
    const all = [...this.schedules.values()].filter(({ nextAt }) => nextAt !== undefined);
    const due = all.filter(({ nextAt }) => nextAt! <= this.now).sort((one, other) => one.nextAt! - other.nextAt!);
    const nextAt = Math.min(...all.filter((one) => !due.includes(one)).map((one) => one.nextAt!));
    const inMs = due.length > limit ? 0 : Math.ceil(nextAt - this.now);
    const rows = due.slice(0, limit).map(({ name, cron, timezone, missed, since, revision }) => {
      const payload_bytes = Math.floor(pageBytes / this.limit);
      const row = { role: "app", name, cron, timezone, missed, since: new Date(since), revision, payload_bytes };
      return { ...row, as_of: null, due_in_ms: null };
    });
    const due_in_ms = inMs === Number.POSITIVE_INFINITY ? null : inMs;
    return [...rows, { role: null, revision: null, as_of: new Date(asOf), due_in_ms }];
  }

  /** As `hawser.run_schedules`. */
  #run(runs: readonly Run[], asOf: number): { readonly ran: number; readonly enqueued: number } {
    let [ran, enqueued] = [0, 0];
    for (const { name, revision, since, upto, next_at, times } of runs) {
      const from = this.schedules.get(name);
      if (String(from?.revision) !== revision || from!.since !== Date.parse(since)) continue;
      const moved = { since: Date.parse(upto), nextAt: next_at === undefined ? undefined : Date.parse(next_at) };
      this.schedules.set(name, { ...from!, ...moved });
      this.moves.push({ from: from!, upto: moved.since, asOf, times: times.map((time) => Date.parse(time)) });
      ran += 1;
      enqueued += times.length;
    }
    return { ran, enqueued };
  }
}

/**
 * Processes run the schedules until a time. Some are killed, or their transaction lands when others have been there.
 *
 * @param happens called between two of them; it may change schedules and set the clock forward
 */
export async function runUntil(
  store: ScheduleStore,
  random: Random,
  until: number,
  happens: () => void,
): Promise<void> {
  while (store.now < until) {
    const isCalm = store.now > until - calmMs;
    const fate = isCalm ? "done" : random.chance(0.1) ? "lost" : random.chance(0.2) ? "late" : "done";
    const run = runDueSchedules(
      store.functions(fate),
      () => false,
      () => 0,
    );
    const waitMs = await run.catch((error: unknown) => {
      if (error !== sessionLost) throw error;
      return 0;
    });
    if (random.chance(0.5)) store.landLate();
    // Timers fire late.
    store.now += waitMs === 0 ? random.between(1, 40) : Math.min(waitMs, until - store.now) + random.between(0, 900);
    if (!isCalm) happens();
  }
  store.landLate();
}

/**
 * Checks that each occurrence was enqueued once, and those that were missed as the policy says.
 *
 * @param occurrencesOf all occurrences of an expression, in order
 * @returns the policies of what was missed, and "page" if more was due than fits
 */
export function checkMoves(
  { schedules, moves, limit }: ScheduleStore,
  until: number,
  occurrencesOf: (cron: string, timezone: string) => readonly number[],
): ReadonlySet<string> {
  const reached = new Set<string>();
  for (const { from, upto, asOf, times } of moves) {
    const { name, cron, timezone, missed, since } = from;
    const what = `${name}: ${cron} in ${timezone}, ${missed}, since ${since} as of ${asOf}`;
    const later = occurrencesOf(cron, timezone).filter((time) => time > since);
    const due = later.filter((time) => time <= asOf);
    expect(times, what).toEqual(expectedOf(due, missed, asOf, limit));
    const passed = later.filter((time) => time > (times.at(-1) ?? since) && time <= upto && asOf - time <= lateMs);
    expect(passed, what).toEqual([]);
    if (due.some((time) => asOf - time > lateMs)) reached.add(missed);
    if (due.length > limit) reached.add("page");
  }
  const enqueued = moves.flatMap(({ from, times }) => times.map((time) => `${from.name} ${time}`));
  expect(new Set(enqueued).size, "occurrences that were enqueued").toBe(enqueued.length);
  for (const { name, cron, timezone, since } of schedules.values()) {
    const open = occurrencesOf(cron, timezone).filter((time) => time > since && time <= until - promptMs);
    expect(open, `${name}: ${cron} in ${timezone}`).toEqual([]);
  }
  return reached;
}

/**
 * Occurrences that must be enqueued in one transaction, of those that are due: as the policy says, in the order of
 * their times.
 */
export function expectedOf(due: readonly number[], missed: MissedPolicy, asOf: number, limit: number): number[] {
  const isMissed = (time: number): boolean => asOf - time > lateMs;
  const late = due.filter(isMissed);
  const kept = missed === "all" ? late : missed === "one" ? late.slice(-1) : [];
  return [...kept, ...due.filter((time) => !isMissed(time))].slice(0, limit);
}
