/**
 * Postgres as the delivery rules see it: names with their epochs, the fence of each name, cursors, stored rows, marks, and parked
 * messages. A call has stages (lock, check, write, commit, answer) that interleave with those of others; its answer may be lost while
 * the commit lands, perhaps much later.
 */

import { comparePositions, type ParkedMessage, type Position } from "../../../src/jobs-and-peers/channel/index.js";
import { lockTimeoutMs } from "../../../src/jobs-and-peers/store/database.js";
import { Postgres, type Session, type Steps, Table, Transaction } from "../postgres.js";
import { Violation } from "../records.js";
import type { PeerProcess } from "./process.js";
import type { MessageRecord } from "./records.js";
import type { ChannelWorld } from "./world.js";

/** Before anything that was ever sent. */
const origin: Position = { epoch: 0, number: 0 };

/** Data that a channel's owner commits at once. */
interface ChannelCommit {
  readonly cursor: Position;
  readonly dead: readonly { readonly position: Position; readonly record: MessageRecord }[];
  /** Positions beyond the cursor that are done. */
  readonly done: readonly Position[];
  /** Parked messages that are done. */
  readonly unparked: readonly Position[];
}

/** Stored row: the payload object is the message's identity in the simulation. */
export interface ModelRow {
  readonly position: Position;
  readonly topicId: number;
  readonly payload: Uint8Array;
}

/** Outcome of a call for the caller. */
export type CallResult<T> = { kind: "ok"; value: T } | { kind: "failed" } | { kind: "unknown" };

/** A name that was taken. */
export interface NameTaken {
  readonly epoch: number;
  readonly wasClean: boolean;
}

/** Process that raised the epoch of a name last, in the name's row. */
export interface Raised {
  readonly epoch: number;
  readonly token: object | undefined;
  /** Only for the checks; undefined for a hand-over. */
  readonly by: PeerProcess | undefined;
}

/** A channel as its owner reads it. */
export interface OwnedChannel {
  readonly cursor: Position;
  /** Done beyond the cursor. */
  readonly done: readonly Position[];
  readonly parked: readonly ParkedMessage[];
  readonly attempts: number;
  /** True if the channel was another listener's. */
  readonly handedOver: boolean;
}

/** Who calls, about which channel, and on which server it believes to be. */
export interface ChannelCall {
  readonly name: string;
  readonly epoch: number;
  readonly server: number;
  readonly key: number;
}

/** A handler inside a transaction. */
interface TransactionHandler {
  isAlive(): boolean;
  run(ended: (how: "commit" | "rollback") => void): void;
  /** Effect of the handler, in the commit. */
  effect(): void;
}

export type Written = "done" | "fenced" | "notOwned";
type Handled = "committed" | "duplicate" | "rolledBack" | "fenced" | "notOwned";

/** A statement that was checked: what it returns, and what it changes. */
interface Prepared<T> {
  readonly value: T;
  readonly commit?: () => void;
}

interface CallOptions {
  readonly name: string;
  /** True if the statement locks the fence for itself alone. */
  readonly isExclusive?: boolean;
  /** True if the statement raises the epoch of the name. */
  readonly raises?: boolean;
  /** True if the statement does not wait at the fence. */
  readonly isUnfenced?: boolean;
  readonly session?: Session;
  readonly server?: number;
  /** Channel whose cursor the statement locks, once it may write. */
  readonly cursorOf?: number;
  /** Marks that it inserts, in order. */
  readonly marks?: readonly Position[];
}

/** End of a call, and how long its answer typically takes. */
type CallEnd<T> = readonly [result: CallResult<T>, answerMs: number];

/** Departures from the rules that a mutant may ask for. */
export interface StoreFaults {
  readonly insertWithoutEpochCheck?: boolean;
  readonly checkWithoutLock?: boolean;
  readonly epochWithoutClock?: boolean;
  readonly noLease?: boolean;
  readonly noOnConflict?: boolean;
  readonly marksWithoutFence?: boolean;
  readonly marksByOwnersEpoch?: boolean;
  readonly readsBeforeMark?: boolean;
  readonly removesMarksFirst?: boolean;
  readonly deadLettersWithoutMark?: boolean;
  readonly readsNoMarks?: boolean;
  readonly parksWithoutMark?: boolean;
  readonly leavesParked?: boolean;
  /** What is done loses its parked row. */
  readonly doneUnparks?: boolean;
  readonly countsNoParked?: boolean;
  readonly reassignsWithoutEpoch?: boolean;
  readonly commitsForAnybody?: boolean;
  readonly countsNoAttempts?: boolean;
  readonly deadLetterAlways?: boolean;
  readonly reassignsWithToken?: boolean;
  readonly takesWithoutToken?: boolean;
  readonly noWaitAtFence?: boolean;
  readonly commitsInMemory?: boolean;
}

export const rowKey = (position: Position) => `${position.epoch}/${position.number}`;

/** Each once, in order. */
function distinct(positions: readonly Position[]): Position[] {
  return [...new Map(positions.map((one) => [rowKey(one), one])).values()].sort(comparePositions);
}

/** A table with a part for each channel. */
class Partitions<Row> {
  readonly parts = new Map<number, Table<string, Row>>();
  readonly #postgres: Postgres;

  constructor(postgres: Postgres) {
    this.#postgres = postgres;
  }

  of(key: number): Table<string, Row> {
    const part = this.parts.get(key) ?? new Table<string, Row>(this.#postgres);
    this.parts.set(key, part);
    return part;
  }
}

export class ChannelStore {
  readonly postgres: Postgres;
  /** The row of each name. */
  readonly #names: Table<string, Raised>;
  /** The epoch of each name whose writes may be committed: raised when those of older ones have ended. */
  readonly #fenceEpochs: Table<string, number>;
  /** The newest epoch ever committed, also where a failover has lost it. */
  readonly newestEpochs = new Map<string, number>();
  readonly cursors: Table<number, Position>;
  readonly #rows: Partitions<ModelRow>;
  /** The listener of each channel, where it is another one than the first. */
  readonly owners: Table<number, string>;
  readonly #attempts: Table<number, number>;
  /** Positions of each channel that are done beyond its cursor. */
  readonly #marks: Partitions<Position>;
  readonly #parked: Partitions<ParkedMessage>;
  /** Names that were given back in good order, with the epoch of that. */
  readonly #clean = new Map<string, number>();

  readonly #world: ChannelWorld;
  readonly #faults: StoreFaults;

  constructor(world: ChannelWorld, faults: StoreFaults) {
    this.#world = world;
    this.#faults = faults;
    const postgres = (this.postgres = new Postgres(world));
    this.#names = new Table(postgres);
    this.#fenceEpochs = new Table(postgres);
    this.cursors = new Table(postgres);
    this.#rows = new Partitions(postgres);
    this.owners = new Table(postgres);
    this.#attempts = new Table(postgres);
    this.#marks = new Partitions(postgres);
    this.#parked = new Partitions(postgres);
  }

  /** Takes the lease of a name, at once or not at all. */
  tryLease(session: Session, name: string): boolean {
    if (this.#faults.noLease) return session.isAlive;
    return this.postgres.tryAdvisoryLock(session, name);
  }

  releaseLease(session: Session, name: string, epoch: number): void {
    if (this.postgres.advisoryUnlock(session, name)) this.#clean.set(name, epoch);
  }

  /** The channels that a listener owns, with their committed cursors. */
  owned(name: string): Map<number, OwnedChannel> {
    const mine = this.#world.channels.filter(({ key }) => this.#world.ownerOf(key) === name);
    return new Map(
      mine.map(({ key, to }) => [
        key,
        {
          cursor: this.#cursorOf(key),
          done: this.#faults.readsNoMarks ? [] : [...this.#marks.of(key).values()],
          parked: this.parkedOf(key),
          attempts: this.#attempts.get(key) ?? 0,
          handedOver: to !== name,
        },
      ]),
    );
  }

  /** The row of a name. */
  row(name: string): Raised {
    return this.#names.get(name) ?? { epoch: 0, token: undefined, by: undefined };
  }

  epochOf(name: string): number | undefined {
    return this.#names.get(name)?.epoch;
  }

  /** Rows of a channel, by {@link rowKey}. */
  rowsOf(key: number): Table<string, ModelRow> {
    return this.#rows.of(key);
  }

  /** Rows of a channel above a position, in order. */
  rowsAbove(key: number, after: Position): ModelRow[] {
    return [...this.rowsOf(key).values()]
      .filter((row) => comparePositions(row.position, after) > 0)
      .sort((a, b) => comparePositions(a.position, b.position));
  }

  /** Parked messages of a channel, in order. */
  parkedOf(key: number): ParkedMessage[] {
    const rows = [...this.#parked.of(key).values()];
    return rows.sort((one, other) => comparePositions(one.message.position, other.message.position));
  }

  #cursorOf(key: number): Position {
    return this.cursors.get(key) ?? origin;
  }

  // ---- names ----

  /** Raises the name's epoch, and waits at the fence in a second transaction; the session must hold the lease. */
  takeName(session: Session, by: PeerProcess, token: object, answer: (result: CallResult<NameTaken>) => void): void {
    const { name } = by;
    const own = (): Prepared<NameTaken> => {
      const before = this.row(name).epoch;
      const clock = this.#faults.epochWithoutClock ? 0 : Math.floor(this.#world.clock());
      const epoch = Math.max(before + 1, clock);
      const commit = (): void => {
        this.#world.checkTaking(name, session);
        this.#raise(name, { epoch, token: this.#faults.takesWithoutToken ? this.row(name).token : token, by });
        if (this.#faults.noWaitAtFence) this.#fenceEpochs.set(name, epoch);
        this.postgres.whenTakenBack(() => this.#world.epochLost(name, epoch));
      };
      return { value: { epoch, wasClean: before === 0 || this.#clean.get(name) === before }, commit };
    };
    this.#call({ name, isUnfenced: true, raises: true, session }, own, (owned) => {
      if (owned.kind !== "ok" || this.#faults.noWaitAtFence) return answer(owned);
      const { value } = owned;
      const commit = (): void => {
        if (this.epochOf(name) === value.epoch) this.#fenceEpochs.set(name, value.epoch);
      };
      this.#call({ name, isExclusive: true, session }, () => ({ value, commit }), answer);
    });
  }

  #raise(name: string, raised: Raised): void {
    this.newestEpochs.set(name, raised.epoch);
    this.#names.set(name, raised);
    this.#world.epochRaised(name, raised.epoch, raised.by);
  }

  /** Hands a listener's channels over to another one, and fences the old one off. */
  reassign(from: string, to: string, done: (keys: readonly number[]) => void): void {
    let keys: number[] = [];
    const commit = (): void => {
      keys = [...this.owned(from).keys()];
      const before = this.row(from);
      const epoch = Math.max(before.epoch + 1, Math.floor(this.#world.clock()));
      if (!this.#faults.reassignsWithoutEpoch) {
        this.#raise(from, { epoch, token: this.#faults.reassignsWithToken ? before.token : undefined, by: undefined });
        this.#fenceEpochs.set(from, epoch);
      }
      for (const key of keys) this.owners.set(key, to);
      if (keys.some((key) => this.#parked.of(key).size > 0)) {
        this.#world.counts.add("transition: channels handed over with something parked");
      }
    };
    const prepare = () => ({ value: undefined, commit });
    this.#call({ name: from, isExclusive: true, raises: true }, prepare, () => done(keys));
  }

  /** Gives a channel back to the listener that it was made for: with a topic, because that serves it. */
  giveBack(
    call: ChannelCall,
    topicId: number | undefined,
    answer: (result: CallResult<"back" | "stays" | "fenced">) => void,
  ): void {
    const { name, key } = call;
    const prepare = (): Prepared<"back" | "stays"> => {
      const goes =
        topicId === undefined
          ? this.#world.isToGiveBack(key, name)
          : this.#world.heirOf(key, name, topicId) !== undefined;
      if (!goes || this.#world.ownerOf(key) !== name) return { value: "stays" };
      const commit = (): void => {
        this.#world.checkGivenBack(name, key);
        this.owners.delete(key);
        const how = topicId === undefined ? "given back" : "passed on";
        if (this.#parked.of(key).size > 0) this.#world.counts.add(`transition: channel ${how} with something parked`);
      };
      return { value: "back", commit };
    };
    this.#fencedCall(call, { isExclusive: true }, prepare, answer);
  }

  // ---- channels ----

  /** Inserts rows of one channel, fenced by the sender's epoch. */
  insert(
    call: ChannelCall,
    rows: readonly ModelRow[],
    answer: (result: CallResult<"stored" | "fenced">) => void,
  ): void {
    const { key } = call;
    const commit = (): void => {
      const table = this.rowsOf(key);
      const fresh = rows.filter((row) => !table.has(rowKey(row.position)));
      if (this.#faults.noOnConflict && fresh.length < rows.length) {
        throw new Violation(`an insert of channel ${key} was refused: duplicate key`);
      }
      this.#world.checkInsert(key, rows);
      for (const row of fresh) {
        table.set(rowKey(row.position), row);
        this.postgres.whenTakenBack(() => table.has(rowKey(row.position)) && this.#world.lost(row.payload));
      }
    };
    const prepare = (): Prepared<"stored"> => ({ value: "stored", commit });
    if (this.#faults.insertWithoutEpochCheck) this.#call(call, prepare, answer);
    else this.#fencedCall(call, {}, prepare, answer);
  }

  /**
   * Writes dead letters and marks, moves a cursor forward, and deletes what it passes with the marks of that, fenced by the
   * listener's epoch.
   */
  commitCursor(
    call: ChannelCall,
    { cursor, dead, done, unparked }: ChannelCommit,
    answer: (result: CallResult<Written>) => void,
  ): void {
    const { key } = call;
    const faults = this.#faults;
    const marked = [...(faults.deadLettersWithoutMark ? [] : dead.map(({ position }) => position)), ...done];
    const ended = [...dead.map(({ position }) => position), ...unparked, ...(faults.doneUnparks ? done : [])];
    const commit = (): void => {
      const marks = this.#marks.of(key);
      const parked = this.#parked.of(key);
      const old = this.#cursorOf(key);
      const isNew = (position: Position) => comparePositions(position, old) > 0 && !marks.has(rowKey(position));
      const isParked = (position: Position) => parked.has(rowKey(position));
      const letters = dead.filter(({ position }) => faults.deadLetterAlways || isNew(position) || isParked(position));
      const stillParked = done.find(
        (position) => isParked(position) && !ended.some((one) => comparePositions(one, position) === 0),
      );
      if (stillParked !== undefined)
        throw new Violation(`message ${rowKey(stillParked)} of channel ${key} is marked as done while it is parked`);
      for (const position of ended) parked.delete(rowKey(position));
      for (const position of marked.filter(isNew)) marks.set(rowKey(position), position);
      this.#moveCursor(key, cursor);
      for (const { record } of letters) this.#world.deadLetter(record);
    };
    const prepare = (): Prepared<"done"> => {
      if (faults.removesMarksFirst) this.#removeMarks(key, cursor);
      return { value: "done", commit };
    };
    this.#ownersCall(call, distinct(marked), prepare, answer);
  }

  /** Unless the cursor was there already. */
  #moveCursor(key: number, cursor: Position): void {
    const old = this.#cursorOf(key);
    if (this.cursors.has(key) && comparePositions(old, cursor) >= 0) return;
    this.#world.checkCursor(key, cursor);
    this.cursors.set(key, cursor);
    this.#attempts.delete(key);
    const rows = this.rowsOf(key);
    // What it passes now: leftovers of before wait for the poll.
    for (const [id, { position }] of rows) {
      if (comparePositions(position, old) > 0 && comparePositions(position, cursor) <= 0) rows.delete(id);
    }
    this.#removeMarks(key, cursor);
  }

  /** Removes the marks of what a cursor has passed. */
  #removeMarks(key: number, cursor: Position): void {
    const marks = this.#marks.of(key);
    for (const [mark, position] of marks) if (comparePositions(position, cursor) <= 0) marks.delete(mark);
  }

  deleteStale(key: number, cursor: Position): void {
    const rows = this.rowsOf(key);
    for (const [id, { position }] of rows) if (comparePositions(position, cursor) <= 0) rows.delete(id);
  }

  /** Parks messages of one channel: with their marks, unless they are done. */
  park(call: ChannelCall, messages: readonly ParkedMessage[], answer: (result: CallResult<Written>) => void): void {
    const { key } = call;
    const commit = (): void => {
      const parked = this.#parked.of(key);
      const marks = this.#marks.of(key);
      for (const one of messages) {
        const { position, payload } = one.message;
        const id = rowKey(position);
        const isThere = parked.has(id);
        const isDone = comparePositions(position, this.#cursorOf(key)) <= 0 || marks.has(id);
        if (!isThere && isDone) continue;
        parked.set(id, one);
        if (isThere) continue;
        if (!this.#faults.parksWithoutMark) marks.set(id, position);
        this.postgres.whenTakenBack(() => this.#world.lost(payload));
      }
    };
    const positions = messages.map(({ message }) => message.position).sort(comparePositions);
    this.#ownersCall(call, positions, () => ({ value: "done", commit }), answer);
  }

  /** Counts a start of a parked message; 0 if it is not there. */
  countParked(call: ChannelCall, position: Position, answer: (result: CallResult<number | "fenced">) => void): void {
    const id = rowKey(position);
    const prepare = (): Prepared<number> => {
      const parked = this.#parked.of(call.key);
      const before = parked.get(id);
      if (before === undefined) return { value: 0 };
      const attempts = before.attempts + 1;
      const commit = (): void => {
        if (!this.#faults.countsNoParked && parked.has(id)) parked.set(id, { ...before, attempts });
      };
      return { value: attempts, commit };
    };
    this.#fencedCall(call, {}, prepare, answer);
  }

  /** Counts a start of the message behind the cursor, or takes one back. */
  countAttempt(call: ChannelCall, answer: (result: CallResult<number | "fenced">) => void, change: 1 | -1 = 1): void {
    const { key } = call;
    const prepare = (): Prepared<number> => {
      const starts = Math.max(0, (this.#attempts.get(key) ?? 0) + change);
      const commit = (): void => {
        if (!this.#faults.countsNoAttempts) this.#attempts.set(key, starts);
      };
      return { value: starts, commit };
    };
    this.#fencedCall(call, { cursorOf: key }, prepare, answer);
  }

  /**
   * A handler's transaction: runs the handler, inserts the mark, for which it waits if another transaction has inserted it,
   * and then reads the cursor and the epoch, without a lock. Of a parked message it deletes the row, in place of all that.
   */
  handle(
    call: ChannelCall,
    position: Position,
    isParked: boolean,
    handler: TransactionHandler,
    answer: (result: CallResult<Handled>) => void,
  ): void {
    const tx = new Transaction();
    const reply = this.#once(answer);
    const isRefused = !this.postgres.isAvailable || call.server !== this.postgres.timeline;
    if (isRefused || this.#world.random.chance(this.#world.callFaultRate)) reply([{ kind: "failed" }, 2]);
    else this.postgres.run(tx, this.#handling(tx, call, position, isParked, handler, reply), reply);
  }

  *#handling(
    tx: Transaction,
    { name, epoch, key }: ChannelCall,
    position: Position,
    isParked: boolean,
    handler: TransactionHandler,
    reply: (end: CallEnd<Handled>) => void,
  ): Steps<CallEnd<Handled>> {
    const { random, counts } = this.#world;
    const { postgres } = this;
    const mark = this.#faults.marksByOwnersEpoch ? `${epoch} ${rowKey(position)}` : rowKey(position);
    /** Verdict for a statement at this moment. */
    const verdict = (): Handled => {
      if (this.#faults.marksWithoutFence) return "committed";
      if (comparePositions(this.#cursorOf(key), position) >= 0 && !isParked) return "duplicate";
      if (this.epochOf(name) !== epoch) return "fenced";
      return this.#mayCommit(name, key) ? "committed" : "notOwned";
    };
    yield postgres.sleep(random.delay(1));
    if (!postgres.isAvailable) return [{ kind: "failed" }, 3];
    // A call whose answer is lost lives on in the server until that finds out.
    const isCut = random.chance(this.#world.callFaultRate);
    const landsLate = isCut && random.chance(0.6);
    const commits = yield (resume) => handler.run((how) => handler.isAlive() && resume(how === "commit"));
    if (!commits) return [{ kind: "ok", value: "rolledBack" }, 2];
    if (isCut && !landsLate) return [{ kind: "failed" }, 2];
    if (landsLate) {
      counts.add("fault: unknown transaction that lands late");
      reply([{ kind: "unknown" }, 3]);
    }
    const early = this.#faults.readsBeforeMark ? verdict() : undefined;
    yield postgres.sleep(random.delay(landsLate ? 40 : 0.5));
    yield this.#lockMark(tx, key, mark);
    const marks = this.#marks.of(key);
    const parked = this.#parked.of(key);
    const isThere = isParked ? !parked.has(rowKey(position)) : marks.has(mark);
    if (isThere) return [{ kind: "ok", value: "duplicate" }, 1];
    yield postgres.sleep(random.delay(0.5));
    const value = early ?? verdict();
    const isSlow = random.chance(this.#world.slowRate);
    yield postgres.sleep(random.delay(isSlow ? 40 : 0.5));
    if (value === "committed") {
      postgres.commit(tx, () => {
        if (!isParked) marks.set(mark, position);
        else if (!this.#faults.leavesParked) parked.delete(rowKey(position));
        handler.effect();
      });
    }
    return [{ kind: "ok", value }, 1];
  }

  #mayCommit(name: string, key: number): boolean {
    return this.#faults.commitsForAnybody === true || this.#world.ownerOf(key) === name;
  }

  // ---- faults ----

  /** Somebody deletes a row by hand. Returns its payload. */
  deleteSomeRow(): Uint8Array | undefined {
    const tables = [...this.#rows.parts.values()].filter((table) => table.size > 0);
    if (tables.length === 0) return undefined;
    const table = this.#world.random.pick(tables);
    const row = this.#world.random.pick([...table.values()]);
    table.delete(rowKey(row.position));
    return row.payload;
  }

  /** A standby takes over that has not seen the last commits; everybody is cut off. */
  failover(): void {
    this.postgres.failover(this.#world.random.between(1, 6));
  }

  /** The same server comes back, with all that it has committed, which was on disk; everybody is cut off. */
  crash(): void {
    if (this.#faults.commitsInMemory) this.postgres.takeBack(this.#world.random.between(1, 6));
    this.postgres.crash();
  }

  // ---- calls ----

  /** Reads something in one snapshot. */
  read<T>(look: () => T, answer: (result: CallResult<T>) => void): void {
    const { schedule, random, counts } = this.#world;
    const { starts } = this.postgres;
    schedule.after(random.delay(1), () => {
      const isOver = !this.postgres.isAvailable || starts !== this.postgres.starts;
      if (isOver || random.chance(this.#world.callFaultRate)) {
        schedule.after(random.delay(2), () => answer({ kind: "failed" }));
        return;
      }
      const value = look();
      const isSlow = random.chance(this.#world.slowRate);
      if (isSlow) counts.add("fault: slow query");
      schedule.after(random.delay(isSlow ? 150 : 1), () => answer({ kind: "ok", value }));
    });
  }

  /** A write of a channel's owner, which locks the channel's cursor and inserts marks. */
  #ownersCall(
    call: ChannelCall,
    marks: readonly Position[],
    prepare: () => Prepared<"done">,
    answer: (result: CallResult<Written>) => void,
  ): void {
    const prepareAsOwner = (): Prepared<"done" | "notOwned"> =>
      this.#mayCommit(call.name, call.key) ? prepare() : { value: "notOwned" };
    this.#fencedCall(call, { cursorOf: call.key, marks }, prepareAsOwner, answer);
  }

  /** A call that is refused unless the epoch of the caller is that of the name, and of its fence. */
  #fencedCall<T>(
    { name, epoch, server }: ChannelCall,
    options: Omit<CallOptions, "name" | "server">,
    prepare: () => Prepared<T>,
    answer: (result: CallResult<T | "fenced">) => void,
  ): void {
    const prepareFenced = (): Prepared<T | "fenced"> => {
      const isHeld = this.epochOf(name) === epoch && this.#fenceEpochs.get(name) === epoch;
      return isHeld ? prepare() : { value: "fenced" };
    };
    this.#call({ ...options, name, server }, prepareFenced, answer);
  }

  #call<T>(options: CallOptions, prepare: () => Prepared<T>, answer: (result: CallResult<T>) => void): void {
    const tx = new Transaction();
    const reply = this.#once(answer);
    // A new connection to another server is not used before the lease is taken anew there.
    const isStranger = options.server !== undefined && options.server !== this.postgres.timeline;
    if (isStranger) this.#world.counts.add("transition: another server refused");
    if (!this.postgres.isAvailable || isStranger) reply([{ kind: "failed" }, 2]);
    else this.postgres.run(tx, this.#calling(tx, options, prepare, reply), reply);
  }

  /** Answers once: a call that was cut is answered before it lands. Without an end, the server has started again. */
  #once<T>(answer: (result: CallResult<T>) => void): (end: CallEnd<T> | undefined) => void {
    const { schedule, random } = this.#world;
    let isAnswered = false;
    return ([result, answerMs] = [{ kind: "unknown" }, 3]) => {
      const delayMs = random.delay(answerMs);
      if (isAnswered) return;
      isAnswered = true;
      schedule.after(delayMs, () => answer(result));
    };
  }

  *#calling<T>(
    tx: Transaction,
    { name, isExclusive = false, raises, isUnfenced, session, cursorOf, marks = [] }: CallOptions,
    prepare: () => Prepared<T>,
    reply: (end: CallEnd<T>) => void,
  ): Steps<CallEnd<T>> {
    const { random, counts } = this.#world;
    const { postgres } = this;
    // The client may lose its connection at any stage; the server then either never commits, or commits late.
    const isCut = random.chance(this.#world.callFaultRate);
    const landsLate = isCut && random.chance(0.6);
    yield postgres.sleep(random.delay(1));
    if (isCut && !landsLate) {
      counts.add("fault: call lost before its commit");
      return [random.chance(0.5) ? { kind: "failed" } : { kind: "unknown" }, 3];
    }
    if (raises) yield postgres.lock(tx, `name ${name}`);
    const locksFence = !isUnfenced && !(this.#faults.checkWithoutLock && !isExclusive);
    if (locksFence) yield postgres.lock(tx, `fence ${name}`, { isShared: !isExclusive });
    yield postgres.sleep(random.delay(0.5));
    if (landsLate) {
      counts.add("fault: unknown commit that lands late");
      reply([{ kind: "unknown" }, 3]);
    }
    const { value, commit } = prepare();
    if (cursorOf !== undefined && commit !== undefined) {
      const waits = "transition: waited for a cursor";
      const isLocked = yield postgres.lock(tx, `cursor ${cursorOf}`, { waits, timeoutMs: lockTimeoutMs });
      if (!isLocked) return [{ kind: "failed" }, 1];
      for (const mark of marks) yield this.#lockMark(tx, cursorOf, rowKey(mark));
    }
    const isSlow = !landsLate && random.chance(this.#world.slowRate);
    if (isSlow) counts.add("fault: slow commit");
    yield postgres.sleep(random.delay(landsLate || isSlow ? 40 : 0.5));
    if (session?.isAlive === false) return [{ kind: "failed" }, 1];
    if (commit !== undefined) postgres.commit(tx, commit);
    return [{ kind: "ok", value }, 1];
  }

  /** Inserts a mark: waits for the end of a transaction that has inserted the same. */
  #lockMark(tx: Transaction, key: number, mark: string) {
    return this.postgres.lock(tx, `mark ${key} ${mark}`, { waits: "transition: waited for a mark" });
  }
}
