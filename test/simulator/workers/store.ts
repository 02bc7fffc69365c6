/**
 * The queue as its workers see it: rows, and which worker has them. Each statement is one step. A row is free when it has no worker,
 * or one that has ended.
 */
import { HawserError } from "../../../src/foundation/errors/index.js";
import type { OpenedWorker, OpenRequest } from "../../../src/jobs-and-peers/queue/worker/effects.js";
import type { Answer, Given, StatementName } from "../../../src/jobs-and-peers/queue/worker/statements.js";
import { QueuedMessage, type QueuePlace } from "../../../src/jobs-and-peers/store/index.js";
import type { WorkerWorld } from "./world.js";

/** Topics: of plain handlers, of batches, of handlers with a limit of their process, and with a limit of the store. */
export const topics = ["plain", "batched", "limited here", "limited"] as const;

/** Time without a statement after which others end a worker. */
export const leaseMs = 400;
export const maxAttempts = 3;
/** Number of messages of the topic that has a limit of the store that may run. */
const mostRunning = 2;

export interface Row {
  readonly rank: bigint;
  readonly topic: string;
  readonly key: string | undefined;
  readonly isUnique: boolean;
  worker: bigint | undefined;
  attempts: number;
  isSuspect: boolean;
  dueAt: number;
  isCancelled: boolean;
}

type Statements = { readonly [Name in StatementName]: (...given: Given<Name>) => Answer<Name> };

export class WorkerStore {
  readonly rows = new Map<bigint, Row>();
  /** Workers, and when each has said last that it goes on. */
  readonly #workers = new Map<bigint, number>();
  readonly paused = new Set<string>();
  readonly #world: WorkerWorld;
  #ranks = 0n;
  #ids = 0n;

  constructor(world: WorkerWorld) {
    this.#world = world;
  }

  newId(): bigint {
    this.#ids += 1n;
    return this.#ids;
  }

  enqueue(topic: string, key: string | undefined, isUnique: boolean): void {
    this.#ranks += 1n;
    const rank = this.#ranks;
    const free = { worker: undefined, attempts: 0, isSuspect: false, dueAt: 0, isCancelled: false };
    this.rows.set(rank, { rank, topic, key, isUnique, ...free });
  }

  cancel(row: Row): void {
    if (this.#isFree(row)) this.rows.delete(row.rank);
    else row.isCancelled = true;
  }

  /** Deletes the row, whoever has it. @returns false if it is gone */
  end(rank: bigint): boolean {
    return this.rows.delete(rank);
  }

  hasWorker(worker: bigint): boolean {
    return this.#workers.has(worker);
  }

  rowsOf(worker: bigint): Row[] {
    return [...this.rows.values()].filter((row) => row.worker === worker);
  }

  run<Name extends StatementName>(name: Name, given: Given<Name>): Answer<Name> {
    return (this.#statements[name] as (...given: Given<Name>) => Answer<Name>)(...given);
  }

  openWorker({ left, running, replaces }: OpenRequest): OpenedWorker {
    this.#endSilent();
    if (left !== undefined) {
      const goesOn = this.#workers.delete(left.worker) || this.#workers.has(left.nextId);
      if (goesOn) return { worker: left.nextId, kept: this.#goOn(left.worker, left.nextId, running) };
    }
    if (replaces !== undefined) this.#endWorker(replaces);
    const worker = this.newId();
    this.#workers.set(worker, this.#now);
    return { worker, kept: undefined };
  }

  #goOn(before: bigint, worker: bigint, running: readonly QueuePlace[]): Set<bigint> {
    this.#world.counts.add("transition: went on with a worker");
    this.#workers.set(worker, this.#now);
    const named = new Set(running.map(({ rank }) => rank));
    for (const row of this.rowsOf(before)) row.worker = named.has(row.rank) ? worker : undefined;
    for (const row of this.rowsOf(worker)) if (!named.has(row.rank)) row.worker = undefined;
    return new Set(this.rowsOf(worker).map(({ rank }) => rank));
  }

  closeWorker(worker: bigint): void {
    this.#endWorker(worker);
  }

  #endWorker(worker: bigint): void {
    for (const row of this.rowsOf(worker)) row.worker = undefined;
    this.#workers.delete(worker);
  }

  #endSilent(): void {
    for (const [worker, beatAt] of this.#workers) {
      if (this.#now - beatAt <= leaseMs) continue;
      this.#world.counts.add("fault: lease ended");
      for (const row of this.rowsOf(worker)) {
        row.attempts += 1;
        row.isSuspect = true;
      }
      this.#endWorker(worker);
    }
  }

  readonly #statements: Statements = {
    serveTopics: (worker) => this.#beat(worker),
    extend: (worker, looks) => this.#extend(worker, looks),
    rest: (worker) => this.#beat(worker),
    take: (worker, given) => this.#take(worker, given),
    giveBack: (worker, rows) => this.#giveBack(worker, rows),
    done: (rows) => this.#done(rows),
    retry: (worker, row, delayMs, failure) => {
      const own = this.#own(worker, row);
      own.dueAt = this.#now + delayMs;
      if (failure !== undefined) own.attempts += 1;
      this.#free(own, worker);
    },
    giveUp: (worker, row) => void this.rows.delete(this.#own(worker, row).rank),
    begin: (worker, { rank }) => this.rows.get(rank)?.worker === worker,
    beginUnique: (worker, { rank }) => this.#beginUnique(worker, rank),
    setProgress: () => undefined,
    endCancelled: (worker, ranks) => {
      this.#beat(worker);
      for (const rank of ranks) if (this.rows.get(rank)?.isCancelled === true) this.rows.delete(rank);
    },
    waitFor: () => ({ waits: true, horizon: 0n }),
    stopWaiting: () => undefined,
    hasPassed: () => true,
  };

  get #now(): number {
    return this.#world.schedule.now;
  }

  #beat(worker: bigint): void {
    if (!this.#workers.has(worker)) throw new HawserError("lease_lost", "the worker has ended");
    this.#workers.set(worker, this.#now);
  }

  #extend(worker: bigint, looks: boolean): Answer<"extend"> {
    this.#endSilent();
    this.#beat(worker);
    const rows = [...this.rows.values()];
    const due = rows.filter((row) => this.#isFree(row) && row.dueAt > this.#now).map(({ dueAt }) => dueAt);
    return {
      isFirst: false,
      hasMessages: looks && rows.some((row) => this.#isFree(row) && row.dueAt <= this.#now),
      pausedTopics: [...this.paused],
      limitedTopics: ["limited"],
      keptTopics: [],
      cancelled: this.rowsOf(worker).flatMap(({ rank, isCancelled }) => (isCancelled ? [rank] : [])),
      dueInMs: due.length === 0 ? null : BigInt(Math.ceil(Math.min(...due) - this.#now)),
      leaseEndsInMs: null,
    };
  }

  #isFree({ worker }: Row): boolean {
    return worker === undefined || !this.#workers.has(worker);
  }

  #take(worker: bigint, { topics: asked, most, after }: Given<"take">[1]): Answer<"take"> {
    this.#endSilent();
    this.#beat(worker);
    const limited = new Map<string, number>();
    let room = most;
    if (asked.includes("limited")) {
      const running = [...this.rows.values()].filter((row) => row.topic === "limited" && !this.#isFree(row)).length;
      const isAlone = asked.length === 1;
      if (isAlone) room = Math.min(most, mostRunning - running);
      limited.set("limited", isAlone && room <= 0 ? 50 : 0);
    }
    const taken: Row[] = [];
    const looked = new Map<string, bigint>();
    for (const row of this.rows.values()) {
      const { topic, rank } = row;
      const mayBegin = asked.includes(topic) && !this.paused.has(topic) && (topic !== "limited" || asked.length === 1);
      if (!mayBegin || rank <= BigInt(after[topic]?.[""]?.["role"] ?? 0) || taken.length >= room) continue;
      looked.set(topic, rank);
      if (!this.#mayTake(row, worker)) continue;
      row.worker = worker;
      taken.push(row);
    }
    return {
      messages: taken.map((row) => this.#messageOf(row)),
      looked: [...looked].map(([topic, rank]) => ({ topic, recipient: "", role: "role", rank })),
      limited,
      hasMore: false,
    };
  }

  /** True if the row is free and due, and what is before it of its key is this worker's. */
  #mayTake(row: Row, worker: bigint): boolean {
    if (!this.#isFree(row) || row.dueAt > this.#now) return false;
    if (row.isCancelled) {
      this.rows.delete(row.rank);
      return false;
    }
    if (row.key === undefined) return true;
    for (const other of this.rows.values())
      if (other !== row && isOfKey(other, row) && (other.rank < row.rank || !this.#isFree(other)))
        if (other.worker !== worker || this.#isFree(other)) return false;
    return true;
  }

  #messageOf({ topic, rank, key, attempts, isSuspect, isUnique }: Row): QueuedMessage {
    const place = { topic, recipient: "", role: "role", rank };
    const columns = { ...place, key: key ?? null, attempts, isSuspect, wasRunning: true, isUnique, isKept: false };
    return new QueuedMessage(columns, rank, { payload: new Uint8Array(), headers: [], fault: undefined }, "server");
  }

  #own(worker: bigint, { rank }: QueuePlace): Row {
    this.#beat(worker);
    const row = this.rows.get(rank);
    if (row?.worker !== worker) throw new HawserError("message_gone", "the row is another's");
    return row;
  }

  /** Frees a row, and with it what the worker has behind it of its key. */
  #free(row: Row, worker: bigint): void {
    row.worker = undefined;
    if (row.key === undefined) return;
    for (const other of this.rowsOf(worker)) if (isOfKey(other, row) && other.rank > row.rank) other.worker = undefined;
  }

  #giveBack(worker: bigint, rows: readonly QueuePlace[]): void {
    this.#beat(worker);
    for (const { rank } of rows) {
      const row = this.rows.get(rank);
      if (row?.worker === worker) this.#free(row, worker);
    }
  }

  #done(rows: readonly QueuePlace[]): void {
    const gone = rows.filter(({ rank }) => !this.rows.delete(rank));
    if (gone.length > 0) throw new HawserError("message_gone", "another worker has deleted a row");
  }

  /** Some rows are withdrawn by their transaction, and due again a little later. */
  #beginUnique(worker: bigint, rank: bigint): Answer<"beginUnique"> {
    const row = this.rows.get(rank);
    const isOwn = row?.worker === worker;
    if (isOwn && !this.#world.random.chance(0.2)) return { begins: true, dueInMs: undefined, replacement: undefined };
    if (isOwn) {
      row.dueAt = this.#now + 5;
      row.worker = undefined;
    }
    return { begins: false, dueInMs: isOwn ? 5 : undefined, replacement: undefined };
  }
}

function isOfKey(row: Row, other: Row): boolean {
  return row.topic === other.topic && row.key === other.key;
}
