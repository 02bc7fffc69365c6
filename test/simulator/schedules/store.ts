/**
 * Postgres, as far as schedules go: their rows, the messages that were enqueued, transactions that commit or are lost, failovers,
 * and what was done with each occurrence.
 */

import type { MissedPolicy, SchedulePlan, ScheduleTimes } from "../../../src/outbox/occurrences.js";
import { lateMs } from "../../../src/outbox/occurrences.js";
import type { StoreFaults } from "./mutants.js";

/** A schedule as its row has it. Times are in milliseconds since 1970. */
export interface Row {
  readonly name: string;
  readonly cron: string;
  readonly timezone: string;
  readonly missed: MissedPolicy;
  readonly since: number;
  /** -Infinity: it is to be computed; undefined: there is none. */
  readonly nextAt: number | undefined;
  readonly revision: number;
}

/** A message of a schedule. */
export interface Enqueued {
  readonly name: string;
  readonly time: number;
}

/** A transaction that has moved a schedule on. */
export interface Move {
  /** The row as it was. */
  readonly from: Row;
  readonly upto: number;
  /** The clock of Postgres when the schedule was read, in whole milliseconds, as a `Date` has it. */
  readonly asOf: number;
  readonly times: readonly number[];
  /** Limit of occurrences that are enqueued at once. */
  readonly limit: number;
}

/** Plan of a runner for a schedule. */
export interface Planned {
  readonly row: Row;
  readonly asOf: number;
  readonly plan: SchedulePlan;
  readonly limit: number;
}

interface State {
  readonly rows: Map<string, Row>;
  readonly outbox: Enqueued[];
  readonly moves: Move[];
  /** The last revision. A failover gives it again. */
  revision: number;
}

export class ScheduleStore {
  readonly #now: () => number;
  readonly #faults: StoreFaults;
  #state: State = { rows: new Map(), outbox: [], moves: [], revision: 0 };
  /** States of the last while, for failovers. */
  #history: { readonly at: number; readonly state: State }[] = [];
  /** Rows that a transaction of a user has locked. */
  readonly locked = new Set<string>();
  onChange: () => void = () => undefined;

  readonly #canFailOver: boolean;

  /** @param canFailOver earlier states are kept */
  constructor(now: () => number, faults: StoreFaults, canFailOver = true) {
    this.#now = now;
    this.#faults = faults;
    this.#canFailOver = canFailOver;
  }

  get rows(): ReadonlyMap<string, Row> {
    return this.#state.rows;
  }

  get outbox(): readonly Enqueued[] {
    return this.#state.outbox;
  }

  get moves(): readonly Move[] {
    return this.#state.moves;
  }

  /** As `hawser.schedule`. */
  schedule(given: Omit<Row, "since" | "nextAt" | "revision">): void {
    const state = this.#begin();
    const { rows } = state;
    const old = rows.get(given.name);
    const isSame = old !== undefined && old.cron === given.cron && old.timezone === given.timezone;
    if (isSame && old.missed === given.missed) return;
    const since = isSame ? old.since : Math.floor(this.#now() / 1_000) * 1_000;
    const nextAt = isSame ? old.nextAt : Number.NEGATIVE_INFINITY;
    rows.set(given.name, { ...given, since, nextAt, revision: ++state.revision });
    this.onChange();
  }

  /** As `hawser.unschedule`. */
  unschedule(name: string): void {
    this.#begin().rows.delete(name);
  }

  /** As `hawser.due_schedules`. */
  due(limit: number): { readonly rows: readonly Row[]; readonly asOf: number; readonly dueInMs: number } {
    const now = this.#now();
    const due = [...this.rows.values()].filter(({ nextAt }) => nextAt !== undefined && nextAt <= now);
    const later = [...this.rows.values()].flatMap(({ nextAt }) =>
      nextAt !== undefined && nextAt > now ? [nextAt] : [],
    );
    const dueInMs = due.length > limit ? 0 : Math.ceil(Math.min(...later) - now);
    return {
      rows: due.sort((one, other) => one.nextAt! - other.nextAt!).slice(0, limit),
      asOf: Math.floor(now),
      dueInMs,
    };
  }

  /** As `hawser.run_schedules`. @returns how many schedules were as they were read */
  run(planned: readonly Planned[]): number {
    let ran = 0;
    for (const one of planned) {
      if (!this.#isAsRead(one)) continue;
      this.#apply(one, true, true);
      ran += 1;
    }
    return ran;
  }

  /** Only the messages, and only the next occurrence: two transactions that should be one. */
  enqueueOnly(planned: readonly Planned[]): void {
    for (const one of planned) if (this.#isAsRead(one)) this.#apply(one, true, false);
  }

  moveOnly(planned: readonly Planned[]): void {
    for (const one of planned) if (this.#isAsRead(one)) this.#apply(one, false, true);
  }

  #isAsRead({ row }: Planned): boolean {
    const { noCompare = false, noRevision = false } = this.#faults;
    const present = this.rows.get(row.name);
    if (present === undefined || this.locked.has(row.name)) return false;
    if (noCompare) return true;
    return present.since === row.since && (noRevision || present.revision === row.revision);
  }

  #apply({ row, asOf, plan, limit }: Planned, enqueues: boolean, moves: boolean): void {
    const state = this.#begin();
    const present = state.rows.get(row.name)!;
    const times = plan.occurrences.map((time) => time.getTime());
    const upto = this.#faults.goesOnFromNow === true ? Math.floor(this.#now() / 1_000) * 1_000 : plan.upto.getTime();
    if (enqueues) for (const time of times) state.outbox.push({ name: row.name, time });
    if (!moves) return;
    state.rows.set(row.name, { ...present, since: upto, nextAt: plan.next?.getTime() });
    state.moves.push({ from: present, upto, asOf, times, limit });
  }

  /** Another server goes on, which lacks the last transactions. */
  failover(lostMs: number): void {
    const found = this.#history.findLast(({ at }) => at <= this.#now() - lostMs) ?? this.#history[0];
    if (found === undefined) return;
    this.#state = copyOf(found.state);
    this.#history = [];
  }

  /** A transaction that commits at once. */
  #begin(): State {
    if (!this.#canFailOver) return this.#state;
    this.#history.push({ at: this.#now(), state: copyOf(this.#state) });
    if (this.#history.length > 20) this.#history.shift();
    return this.#state;
  }
}

function copyOf({ rows, outbox, moves, revision }: State): State {
  return { rows: new Map(rows), outbox: [...outbox], moves: [...moves], revision };
}

/** Properties of a row that a planner receives. */
export function timesOf({ cron, timezone, missed, since }: Row): ScheduleTimes {
  return { cron, timezone, missed, since: new Date(since) };
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
