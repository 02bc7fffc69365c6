/**
 * A model of Postgres in virtual time, which every simulation shares. A simulation adds its tables and statements.
 *
 * - A {@link Table} has rows by key, and only those that are committed. A transaction writes its rows when it commits, all at
 *   once. Until then it reads what others commit, as READ COMMITTED does.
 * - A {@link Transaction} is a sequence of steps. Between two of them others run: it waits for time to pass, or for a lock. A
 *   lock has a name: it stands for a row, for a key that is about to be inserted, or for an advisory lock. It is shared or
 *   exclusive, goes to who has waited longest, and is held to the end of the transaction. `tryLock` takes a lock that is free, as
 *   SKIP LOCKED, NOWAIT and pg_try_advisory_xact_lock do.
 * - Xids and the numbers of a sequence are assigned when a transaction writes, so that transactions commit in another order. A
 *   snapshot tells which of them had ended.
 * - The log has each commit, with the way back, and each row that has a number of a sequence. A crash takes back what is not on
 *   disk yet. After a failover the server is a standby that has not received the last entries. Both end every transaction, which
 *   finds that out at its next step, and every session. A dump that is restored elsewhere has the rows, and other xids.
 * - A {@link Session} holds advisory locks until it ends. Its client may learn of that much later.
 */
import type { Random } from "./random.js";
import { type Counts, Violation } from "./records.js";
import type { Schedule } from "./schedule.js";

/** Waits, and then calls `resume`: with false if it has waited too long for a lock. */
type Wait = (resume: (isGranted?: boolean) => void) => void;

/** Steps of a transaction. `yield` returns what its wait resumes with. */
export type Steps<Result> = Generator<Wait, Result, boolean>;

/** Takes a change back. `wasOnDisk`: it is lost by a failover, not by a crash. */
type Undo = (wasOnDisk: boolean) => void;

interface LockOptions {
  readonly isShared?: boolean;
  /** Name that is counted if the lock is not free. */
  readonly waits?: string;
  /** Default: no limit. */
  readonly timeoutMs?: number;
}

interface Waiter {
  readonly tx: Transaction;
  readonly isShared: boolean;
  readonly resume: (isGranted: boolean) => void;
}

interface Lock {
  exclusive: Transaction | undefined;
  readonly shared: Set<Transaction>;
  readonly waiting: Waiter[];
}

export class Transaction {
  /** Assigned with the first write. */
  xid: number | undefined;
  state: "running" | "committed" | "aborted" = "running";
  readonly locks = new Map<string, Lock>();
  /** Tells the client that the server has ended the transaction. */
  onAbort: () => void = () => undefined;
}

/** A connection of a client. */
export class Session {
  isAlive = true;
  onLost: () => void = () => undefined;
}

export class Table<Key, Row> extends Map<Key, Row> {
  readonly #postgres: Postgres;

  constructor(postgres: Postgres) {
    super();
    this.#postgres = postgres;
  }

  override set(key: Key, row: Row): this {
    const before = this.get(key);
    const wasThere = this.has(key);
    this.#postgres.whenTakenBack(() => {
      if (wasThere) super.set(key, before!);
      else super.delete(key);
    });
    return super.set(key, row);
  }

  override delete(key: Key): boolean {
    if (!this.has(key)) return false;
    const before = this.get(key)!;
    this.#postgres.whenTakenBack(() => super.set(key, before));
    return super.delete(key);
  }
}

export class Postgres {
  isAvailable = true;
  /** Tells servers apart: grows with each failover. */
  timeline = 1;
  /** Grows when everything that was under way has ended, as with a crash or a failover. */
  starts = 1;
  /** Transactions that are running. */
  readonly running = new Set<Transaction>();
  readonly #schedule: Schedule;
  readonly #random: Random;
  readonly #counts: Counts;
  readonly #locks = new Map<string, Lock>();
  readonly #sessions = new Set<Session>();
  readonly #advisoryLocks = new Map<string, Session>();
  #log: { readonly xid?: number | undefined; readonly id?: bigint; readonly undo: readonly Undo[] }[] = [];
  /** So many entries of the log are on disk. */
  #onDisk = 0;
  /** Changes of the transaction that is committing. */
  #committing: Undo[] | undefined;
  /** The first xid and number behind those of a log without entries. */
  #first = { xid: 100, id: 1n };
  #nextXid = 100;
  #nextId = 1n;

  constructor({ schedule, random, counts }: { schedule: Schedule; random: Random; counts: Counts }) {
    this.#schedule = schedule;
    this.#random = random;
    this.#counts = counts;
  }

  // ---- transactions ----

  begin<T extends Transaction>(tx: T): T {
    this.running.add(tx);
    return tx;
  }

  /**
   * Runs a transaction to its end.
   *
   * @param ended called with the result; with undefined if the server has ended the transaction
   */
  run<Result>(tx: Transaction, steps: Steps<Result>, ended: (result: Result | undefined) => void): void {
    let isOver = false;
    const end = (result: Result | undefined): void => {
      if (isOver) return;
      isOver = true;
      this.abort(tx);
      ended(result);
    };
    const resume = (isGranted = true): void => {
      if (isOver) return;
      if (tx.state === "aborted") {
        end(undefined);
        return;
      }
      const step = steps.next(isGranted);
      if (step.done === true) end(step.value);
      else step.value(resume);
    };
    tx.onAbort = () => end(undefined);
    this.begin(tx);
    resume();
  }

  sleep(ms: number): Wait {
    return (resume) => this.#schedule.after(ms, resume);
  }

  /** Commits what `write` changes. */
  commit(tx: Transaction, write: () => void = () => undefined, isOnDisk = true): void {
    if (tx.state !== "running") return;
    tx.state = "committed";
    this.#committing = [];
    write();
    if (this.#committing.length > 0) this.#log.push({ xid: tx.xid, undo: this.#committing });
    this.#committing = undefined;
    if (isOnDisk) this.#onDisk = this.#log.length;
    this.#end(tx);
  }

  /** Commits a change in a transaction of its own. */
  write(change: () => void, isOnDisk = true): void {
    const tx = this.begin(new Transaction());
    this.assignXid(tx);
    this.commit(tx, change, isOnDisk);
  }

  /** Ends a transaction that has not committed. */
  abort(tx: Transaction): void {
    if (tx.state !== "running") return;
    tx.state = "aborted";
    this.#end(tx);
    tx.onAbort();
  }

  #end(tx: Transaction): void {
    this.running.delete(tx);
    for (const name of [...tx.locks.keys()]) this.unlock(tx, name);
  }

  /** Says how to take back a change of the transaction that is committing. A change outside of a commit stays. */
  whenTakenBack(undo: Undo): void {
    this.#committing?.push(undo);
  }

  assignXid(tx: Transaction): number {
    tx.xid ??= this.takeXid();
    return tx.xid;
  }

  /** An xid that no transaction of the model has. */
  takeXid(): number {
    return this.#nextXid++;
  }

  /** The next number of the sequence, for a row of a transaction. */
  takeId(tx: Transaction): bigint {
    const id = this.#nextId++;
    this.#log.push({ xid: this.assignXid(tx), id, undo: [] });
    return id;
  }

  /** As pg_current_snapshot(): `xmin:xmax:xip`. */
  snapshot(): string {
    const xip = [...this.running].flatMap(({ xid }) => (xid === undefined ? [] : [xid]));
    xip.sort((one, other) => one - other);
    return `${xip[0] ?? this.#nextXid}:${this.#nextXid}:${xip.join(",")}`;
  }

  // ---- locks ----

  /** Waits for a lock, unless the transaction has it. */
  lock(tx: Transaction, name: string, { isShared = false, waits, timeoutMs }: LockOptions = {}): Wait {
    return (resume) => {
      if (tx.locks.has(name)) return resume(true);
      const lock = this.#lockOf(name);
      const waiter: Waiter = { tx, isShared, resume };
      lock.waiting.push(waiter);
      this.#grant(name, lock);
      if (!lock.waiting.includes(waiter)) return;
      if (waits !== undefined) this.#counts.add(waits);
      if (timeoutMs === undefined) return;
      this.#schedule.after(timeoutMs, () => {
        if (!lock.waiting.includes(waiter)) return;
        lock.waiting.splice(lock.waiting.indexOf(waiter), 1);
        this.#grant(name, lock);
        resume(false);
      });
    };
  }

  /** Takes a lock, whoever waits for it, unless another transaction holds it. */
  tryLock(tx: Transaction, name: string, isShared = false): boolean {
    const lock = this.#lockOf(name);
    if (tx.locks.has(name)) return true;
    if (!isFree(lock, isShared)) return false;
    take(tx, name, lock, isShared);
    return true;
  }

  /** Gives a lock back before the end of the transaction, as a rollback to a savepoint does. */
  unlock(tx: Transaction, name: string): void {
    const lock = tx.locks.get(name);
    if (lock === undefined) return;
    tx.locks.delete(name);
    if (lock.exclusive === tx) lock.exclusive = undefined;
    lock.shared.delete(tx);
    this.#grant(name, lock);
  }

  #lockOf(name: string): Lock {
    const lock: Lock = this.#locks.get(name) ?? { exclusive: undefined, shared: new Set(), waiting: [] };
    this.#locks.set(name, lock);
    return lock;
  }

  #grant(name: string, lock: Lock): void {
    for (let [next] = lock.waiting; next !== undefined; [next] = lock.waiting) {
      const { tx, isShared, resume } = next;
      const isOver = tx.state !== "running";
      if (!isOver && !isFree(lock, isShared)) return;
      lock.waiting.shift();
      if (isOver) continue;
      take(tx, name, lock, isShared);
      resume(true);
    }
  }

  // ---- sessions ----

  connect(): Session | undefined {
    if (!this.isAvailable) return undefined;
    const session = new Session();
    this.#sessions.add(session);
    return session;
  }

  /** Takes an advisory lock, at once or not at all. */
  tryAdvisoryLock(session: Session, name: string): boolean {
    const holder = this.#advisoryLocks.get(name) ?? session;
    if (!session.isAlive || holder !== session) return false;
    this.#advisoryLocks.set(name, session);
    return true;
  }

  isAdvisoryLocked(name: string): boolean {
    return this.#advisoryLocks.has(name);
  }

  /** @returns whether the session had the lock */
  advisoryUnlock(session: Session, name: string): boolean {
    return this.#advisoryLocks.get(name) === session && this.#advisoryLocks.delete(name);
  }

  /** Ends a session. Its locks are free; its client may learn of it only when a heartbeat gets no answer. */
  endSession(session: Session, isNoticed = false): void {
    if (!session.isAlive) return;
    session.isAlive = false;
    this.#sessions.delete(session);
    for (const [name, holder] of this.#advisoryLocks) if (holder === session) this.#advisoryLocks.delete(name);
    const isLate = !isNoticed && this.#random.chance(0.25);
    if (isLate) this.#counts.add("fault: lost session that is noticed late");
    this.#schedule.after(isLate ? this.#random.between(200, 9_000) : this.#random.delay(5), () => session.onLost());
  }

  endSomeSession(): void {
    if (this.#sessions.size > 0) this.endSession(this.#random.pick([...this.#sessions]));
  }

  // ---- faults ----

  /** The server starts again with what is on its disk. */
  crash(): void {
    this.takeBack(this.#log.length - this.#onDisk);
    this.#startAgain();
  }

  /** Another server goes on, which has not received so many of the last entries of the log. */
  failover(entries: number): void {
    this.timeline += 1;
    this.takeBack(entries);
    this.#startAgain();
  }

  /** A dump goes on elsewhere. */
  restore(nextXid: number): void {
    this.#log = [];
    this.#onDisk = 0;
    this.#first = { xid: nextXid, id: this.#nextId };
    this.#nextXid = nextXid;
    this.#startAgain();
  }

  /** Takes back the last entries of the log. Their xids and numbers are assigned again. */
  takeBack(entries: number): void {
    const kept = Math.max(0, this.#log.length - entries);
    const lost = this.#log.splice(kept);
    for (const [nth, { undo }] of [...lost.entries()].toReversed()) {
      for (const each of undo.toReversed()) each(kept + nth < this.#onDisk);
    }
    this.#onDisk = kept;
    this.#nextXid = this.#log.reduce((next, { xid = 0 }) => Math.max(next, xid + 1), this.#first.xid);
    this.#nextId = this.#log.reduce((next, { id = 0n }) => (id < next ? next : id + 1n), this.#first.id);
  }

  #startAgain(): void {
    this.starts += 1;
    for (const tx of this.running) tx.state = "aborted";
    this.running.clear();
    const waiting = [...this.#locks.values()].flatMap((lock) => lock.waiting.splice(0));
    this.#locks.clear();
    for (const { resume } of waiting) resume(false);
    for (const session of [...this.#sessions]) this.endSession(session, true);
  }
}

function isFree({ exclusive, shared }: Lock, isShared: boolean): boolean {
  return exclusive === undefined && (isShared || shared.size === 0);
}

function take(tx: Transaction, name: string, lock: Lock, isShared: boolean): void {
  if (isShared) lock.shared.add(tx);
  else lock.exclusive = tx;
  tx.locks.set(name, lock);
}

/** A snapshot as numbers. */
interface ReadSnapshot {
  readonly xmax: number;
  readonly xip: readonly number[];
}

const parsed = new Map<string, ReadSnapshot>();

export function parseSnapshot(snapshot: string): ReadSnapshot {
  const known = parsed.get(snapshot);
  if (known !== undefined) return known;
  const [, xmax, xip] = snapshot.split(":");
  if (xip === undefined) throw new Violation(`no snapshot: ${snapshot}`);
  const read = { xmax: Number(xmax), xip: xip === "" ? [] : xip.split(",").map(Number) };
  if (parsed.size > 1_000) parsed.clear();
  parsed.set(snapshot, read);
  return read;
}

/** By the numbers alone, as pg_visible_in_snapshot(). */
export function sees(snapshot: string, xid: number): boolean {
  const { xmax, xip } = parseSnapshot(snapshot);
  return xid < xmax && !xip.includes(xid);
}
