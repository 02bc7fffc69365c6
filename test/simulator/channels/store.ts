/**
 * Postgres as the delivery rules see it: names with their epochs, the fence of each name, cursors, stored rows, and rows of the queue.
 * A call has stages (lock, check, write, commit, answer) that interleave with those of others; its answer may be lost while
 * the commit lands, perhaps much later. Of the queue there is no more than channels need: the simulations `leases` and `workers` have
 * its rules.
 */

import { comparePositions, type Position } from "../../../src/jobs-and-peers/channel/index.js";
import { lockTimeoutMs } from "../../../src/jobs-and-peers/store/database.js";
import { Postgres, type Session, type Steps, Table, Transaction } from "../postgres.js";
import { Violation } from "../records.js";
import type { PeerProcess } from "./process.js";
import type { ChannelWorld } from "./world.js";

/** Before anything that was ever sent. */
const origin: Position = { epoch: 0, number: 0 };

/** A process has a row of the queue until somebody frees the rows of its session, which has ended. */
export interface RowLease {
  readonly session: Session;
}

/** Row of the queue, as a channel or a release inserts it. */
interface NewRow {
  readonly position: Position;
  /** Key of the message: those of a channel and a key are handled in order, as are those of a channel without a key. */
  readonly messageKey: string | undefined;
  readonly topicId: number;
  readonly payload: Uint8Array;
  /** Listener that may take it; undefined: any one that serves its topic. */
  readonly recipient: string | undefined;
  readonly attempts: number;
  readonly dueAt: number;
  readonly isSuspect: boolean;
  readonly lease: RowLease | undefined;
}

export interface QueueRow extends NewRow {
  /** Place in the order of the queue. */
  readonly id: number;
  /** Channel that the message came over. */
  readonly key: number;
}

/** What is committed with a cursor that passes an unfinished message. */
export type Leaving = NewRow & { readonly isDead: boolean };

/** What becomes of a row whose handler has ended. */
export type RowEnd =
  | { readonly kind: "done" | "dead" }
  | { readonly kind: "again"; readonly attempts: number; readonly dueAt: number };

/** Lanes of which the queue has rows. */
interface FoundLanes {
  readonly left: ReadonlySet<string | undefined>;
  readonly hasRows: boolean;
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
  /** Only for the checks; undefined for a release. */
  readonly by: PeerProcess | undefined;
}

/** A channel as its listener reads it. */
export interface OwnedChannel {
  readonly cursor: Position;
  readonly hasRows: boolean;
}

/** Who calls, about which channel, and on which server it believes to be. */
export interface ChannelCall {
  readonly name: string;
  readonly epoch: number;
  readonly server: number;
  readonly key: number;
}

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
  /** Channels whose cursors the statement locks, once it may write. */
  readonly cursorsOf?: readonly number[];
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
  /** The rows of a commit are written before its cursor, or after it. */
  readonly rowsFirst?: boolean;
  readonly cursorFirst?: boolean;
  /** A commit inserts its rows wherever the cursor is. */
  readonly insertsAgain?: boolean;
  readonly commitsWithoutFence?: boolean;
  /** Lanes are answered as they were at the question before. */
  readonly answersOldLanes?: boolean;
  /** Whether a channel has no rows is found out before its cursor is locked. */
  readonly clearsUnlocked?: boolean;
  readonly lanesByRecipient?: boolean;
  readonly freesWithoutCount?: boolean;
  readonly releasesWithoutEpoch?: boolean;
  readonly releasesWithoutCursor?: boolean;
  /** A release inserts what the cursor has passed since it was found. */
  readonly releasesAgain?: boolean;
  /** … or moves a cursor that was taken back since. */
  readonly releasesAcross?: boolean;
  readonly releasesWithoutFlag?: boolean;
  readonly releasesWithToken?: boolean;
  readonly takesWithoutToken?: boolean;
  readonly noWaitAtFence?: boolean;
  readonly commitsInMemory?: boolean;
}

export const rowKey = (position: Position) => `${position.epoch}/${position.number}`;

/** Messages of a channel with the same key and topic stay in order, also where they wait. */
export const laneOf = ({ key, messageKey, topicId }: Pick<QueueRow, "key" | "messageKey" | "topicId">) =>
  `${key} ${messageKey} ${topicId}`;

export class ChannelStore {
  readonly postgres: Postgres;
  /** The row of each name. */
  readonly #names: Table<string, Raised>;
  /** The epoch of each name whose writes may be committed: raised when those of older ones have ended. */
  readonly #fenceEpochs: Table<string, number>;
  /** The newest epoch ever committed, also where a failover has lost it. */
  readonly newestEpochs = new Map<string, number>();
  readonly cursors: Table<number, Position>;
  readonly #rows = new Map<number, Table<string, ModelRow>>();
  /** Channels of which the queue may have rows. */
  readonly #haveRows: Table<number, true>;
  /** Rows of the queue, by id. */
  readonly queue: Table<number, QueueRow>;
  #nextRow = 1;
  #oldLanes = new Map<number, FoundLanes["left"]>();
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
    this.#haveRows = new Table(postgres);
    this.queue = new Table(postgres);
  }

  /** Takes the lease of a name, at once or not at all. */
  tryLease(session: Session, name: string): boolean {
    if (this.#faults.noLease) return session.isAlive;
    return this.postgres.tryAdvisoryLock(session, name);
  }

  releaseLease(session: Session, name: string, epoch: number): void {
    if (this.postgres.advisoryUnlock(session, name)) this.#clean.set(name, epoch);
  }

  /** The channels to a listener, with their committed cursors. */
  owned(name: string): Map<number, OwnedChannel> {
    const mine = this.#world.channels.filter(({ to }) => to === name);
    return new Map(mine.map(({ key }) => [key, { cursor: this.#cursorOf(key), hasRows: this.#haveRows.has(key) }]));
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
    const rows = this.#rows.get(key) ?? new Table<string, ModelRow>(this.postgres);
    this.#rows.set(key, rows);
    return rows;
  }

  /** Rows of a channel above a position, in order. */
  rowsAbove(key: number, after: Position): ModelRow[] {
    return [...this.rowsOf(key).values()]
      .filter((row) => comparePositions(row.position, after) > 0)
      .sort((a, b) => comparePositions(a.position, b.position));
  }

  /** Name of a table that is not empty. */
  get leftover(): string | undefined {
    if (this.queue.size > 0) return "queue";
    return [...this.#rows.values()].some(({ size }) => size > 0) ? "stored messages" : undefined;
  }

  /** The committed cursor of a channel has passed a position. */
  isPassed(key: number, position: Position): boolean {
    return comparePositions(position, this.#cursorOf(key)) <= 0;
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

  /**
   * What is stored for an absent listener becomes rows that any listener of the topic may take. Whoever has the name and does not know
   * yet that its session has ended is fenced off.
   *
   * @param isForced whether the listener may be running: then it loses its name
   * @param done called with the number of released rows
   */
  release(name: string, isForced: boolean, done: (released: number) => void): void {
    const mine = this.#world.channels.filter(({ to }) => to === name);
    const look = () =>
      mine.map(({ key }) => {
        const cursor = this.#cursorOf(key);
        return { key, cursor, rows: this.rowsAbove(key, cursor) };
      });
    this.read(look, (found) => {
      if (found.kind === "ok") this.#release(name, isForced, found.value, done);
    });
  }

  /**
   * @param stored what was found some time ago: a listener that has come back meanwhile may have handled it, or a failover may have
   * taken the cursor back, behind which there may be more
   */
  #release(
    name: string,
    isForced: boolean,
    stored: readonly { readonly key: number; readonly cursor: Position; readonly rows: readonly ModelRow[] }[],
    done: (released: number) => void,
  ): void {
    const faults = this.#faults;
    let released = 0;
    const commit = (): void => {
      const before = this.row(name);
      const epoch = Math.max(before.epoch + 1, Math.floor(this.#world.clock()));
      if (!faults.releasesWithoutEpoch) {
        this.#raise(name, { epoch, token: faults.releasesWithToken ? before.token : undefined, by: undefined });
        this.#fenceEpochs.set(name, epoch);
      }
      for (const { key, cursor, rows } of stored) {
        if (!faults.releasesAcross && comparePositions(this.#cursorOf(key), cursor) < 0) continue;
        const hadRows = this.#haveRows.has(key);
        const rest = { recipient: undefined, attempts: 0, dueAt: 0, isSuspect: false, lease: undefined };
        const fresh = rows.filter(({ position }) => faults.releasesAgain || !this.isPassed(key, position));
        this.#insertRows(
          key,
          fresh.map((row) => ({ ...row, ...rest, messageKey: this.#world.keyOf(row.payload) })),
        );
        if (faults.releasesWithoutFlag && !hadRows) this.#haveRows.delete(key);
        released += fresh.length;
        const last = fresh.at(-1)?.position;
        if (last === undefined) continue;
        if (!faults.releasesWithoutCursor) this.#moveCursor(key, last);
        else for (const { position } of fresh) this.rowsOf(key).delete(rowKey(position));
      }
      this.#world.queueChanged(0);
    };
    const prepare = (): Prepared<undefined> => {
      if (isForced || !this.postgres.isAdvisoryLocked(name)) return { value: undefined, commit };
      this.#world.counts.add("transition: release refused");
      return { value: undefined };
    };
    const cursorsOf = stored.map(({ key }) => key);
    this.#call({ name, isExclusive: true, raises: true, cursorsOf }, prepare, () => done(released));
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

  /** Moves a cursor forward, and inserts what leaves the channel with it, fenced by the listener's epoch. */
  commitCursor(
    call: ChannelCall,
    cursor: Position,
    leaving: readonly Leaving[],
    answer: (result: CallResult<"done" | "fenced">) => void,
  ): void {
    const { key } = call;
    const faults = this.#faults;
    const isNew = ({ position }: Leaving) => comparePositions(position, this.#cursorOf(key)) > 0;
    const insert = (rows: readonly Leaving[]): void => {
      this.#insertRows(
        key,
        rows.filter(({ isDead }) => !isDead),
      );
      for (const { isDead, payload } of rows) if (isDead) this.#world.deadLetter(payload);
    };
    const commit = (): void => {
      const fresh = leaving.filter(isNew);
      if (fresh.length < leaving.length) this.#world.counts.add("transition: rows of a repeated commit left out");
      if (!faults.rowsFirst && !faults.cursorFirst) insert(faults.insertsAgain ? leaving : fresh);
      this.#moveCursor(key, cursor);
    };
    const prepare = (): Prepared<"done"> => {
      if (faults.rowsFirst) this.postgres.write(() => insert(leaving.filter(isNew)));
      return { value: "done", commit };
    };
    const answered: typeof answer = (result) => {
      if (faults.cursorFirst && result.kind === "ok" && result.value === "done")
        this.postgres.write(() => insert(leaving));
      answer(result);
    };
    if (faults.commitsWithoutFence) this.#call({ ...call, isUnfenced: true, cursorsOf: [key] }, prepare, answered);
    else this.#fencedCall(call, { cursorsOf: [key] }, prepare, answered);
  }

  /** Unless the cursor was there already. */
  #moveCursor(key: number, cursor: Position): void {
    const old = this.#cursorOf(key);
    if (this.cursors.has(key) && comparePositions(old, cursor) >= 0) return;
    this.#world.checkCursor(key, cursor);
    this.cursors.set(key, cursor);
    const rows = this.rowsOf(key);
    // What it passes now: leftovers of before wait for the poll.
    for (const [id, { position }] of rows) {
      if (comparePositions(position, old) > 0 && comparePositions(position, cursor) <= 0) rows.delete(id);
    }
  }

  deleteStale(call: ChannelCall, cursor: Position): void {
    const rows = this.rowsOf(call.key);
    const commit = (): void => {
      for (const [id, { position }] of rows) if (comparePositions(position, cursor) <= 0) rows.delete(id);
    };
    this.#fencedCall(
      call,
      {},
      () => ({ value: undefined, commit }),
      () => undefined,
    );
  }

  // ---- the queue ----

  #insertRows(key: number, rows: readonly NewRow[]): void {
    if (rows.length === 0) return;
    this.#haveRows.set(key, true);
    for (const row of rows) {
      const id = this.#nextRow++;
      const lane = laneOf({ ...row, key });
      // Behind what waits of its lane, it is for the same.
      const waiting = [...this.queue.values()].find((one) => laneOf(one) === lane);
      const isAlone = waiting === undefined || this.#faults.lanesByRecipient;
      this.queue.set(id, { ...row, recipient: isAlone ? row.recipient : waiting.recipient, key, id });
      // What came live is nowhere else.
      this.postgres.whenTakenBack(() => {
        if (!this.rowsOf(key).has(rowKey(row.position))) this.#world.lost(row.payload);
      });
    }
    this.#world.counts.add("transition: row inserted", rows.length);
    this.#world.queueChanged(this.#world.random.delay(3));
  }

  /** Row that somebody has by this lease. */
  rowOf(lease: RowLease): QueueRow | undefined {
    return [...this.queue.values()].find((row) => row.lease === lease);
  }

  /** Rows of a lane in front of a message. */
  rowsBefore(lane: string, position: Position): QueueRow[] {
    return [...this.queue.values()].filter(
      (row) => laneOf(row) === lane && comparePositions(row.position, position) < 0,
    );
  }

  /**
   * Says of which lanes of a channel the queue has rows of topics that count. If it has none of the channel, that is noted, under the lock of the cursor:
   * rows of a commit that has not ended are not seen.
   */
  findLanes(
    call: ChannelCall,
    keys: readonly (string | undefined)[],
    counts: (topicId: number) => boolean,
    answer: (result: CallResult<FoundLanes>) => void,
  ): void {
    const { key, server, name } = call;
    const found = () => [...this.queue.values()].filter((row) => row.key === key);
    const prepare = (): Prepared<FoundLanes> => {
      const rows = found();
      const counted = rows.filter(({ topicId }) => counts(topicId));
      const present = new Set(counted.map(({ messageKey }) => messageKey));
      const now = new Set(keys.filter((each) => present.has(each)));
      const left = this.#faults.answersOldLanes ? (this.#oldLanes.get(key) ?? new Set()) : now;
      this.#oldLanes.set(key, present);
      const value = { left, hasRows: counted.length > 0 };
      const commit = (): void => {
        value.hasRows = !this.#faults.clearsUnlocked && found().length > 0;
        if (value.hasRows) this.#world.counts.add("transition: rows found under the lock of the cursor");
        else this.#haveRows.delete(key);
      };
      return rows.length > 0 || !this.#haveRows.has(key) ? { value } : { value, commit };
    };
    this.#call({ name, server, isUnfenced: true, cursorsOf: [key] }, prepare, answer);
  }

  /** Takes rows: the first of its lane each, and a suspect alone. @returns also those that the session has, as an answer may be lost */
  take(
    { name, server }: Pick<ChannelCall, "name" | "server">,
    session: Session,
    most: number,
    answer: (result: CallResult<readonly QueueRow[]>) => void,
  ): void {
    const taken: QueueRow[] = [];
    const commit = (): void => {
      const lanes = new Set<string>();
      const rows = [...this.queue.values()].sort((one, other) => one.id - other.id);
      const had = rows.filter(({ lease }) => lease?.session === session);
      taken.push(...had);
      for (const row of rows) {
        const lane = `${laneOf(row)} ${row.recipient}`;
        const isFirst = !lanes.has(lane);
        lanes.add(lane);
        const isFree = row.lease === undefined && row.dueAt <= this.#world.schedule.now;
        if (!isFirst || !isFree || taken.length >= most || !this.#world.mayTake(name, row)) continue;
        if (taken.some(({ isSuspect }) => isSuspect) || (row.isSuspect && taken.length > 0)) continue;
        const leased = { ...row, lease: { session } };
        this.queue.set(row.id, leased);
        taken.push(leased);
      }
    };
    this.#call({ name, server, isUnfenced: true, session }, () => ({ value: taken, commit }), answer);
  }

  /**
   * Ends a row: if its handler is done, whoever has it now, else unless somebody else has it.
   *
   * @param effect effect of the handler, in the same transaction
   */
  endRow(
    { name, server, key }: ChannelCall,
    { position, lease }: { readonly position: Position; readonly lease: RowLease },
    end: RowEnd,
    effect: () => void,
    answer: (result: CallResult<undefined>) => void,
  ): void {
    const commit = (): void => {
      const row = [...this.queue.values()].find(
        (one) => one.key === key && comparePositions(one.position, position) === 0,
      );
      if (row === undefined || (end.kind !== "done" && row.lease !== lease)) return;
      const { attempts, dueAt } = end.kind === "again" ? end : row;
      if (end.kind === "again") this.queue.set(row.id, { ...row, attempts, dueAt, isSuspect: false, lease: undefined });
      else this.queue.delete(row.id);
      if (end.kind === "dead") this.#world.deadLetter(row.payload);
      if (end.kind === "done") effect();
      this.#world.queueChanged(Math.max(0, dueAt - this.#world.schedule.now));
    };
    this.#call({ name, server, isUnfenced: true }, () => ({ value: undefined, commit }), answer);
  }

  /** Frees the rows of sessions that have ended: each may be what has ended its process, so its start counts. */
  freeRows({ name, server }: Pick<ChannelCall, "name" | "server">, maxAttempts: number): void {
    const commit = (): void => {
      for (const [id, row] of this.queue) {
        if (row.lease === undefined || row.lease.session.isAlive) continue;
        const attempts = row.attempts + (this.#faults.freesWithoutCount ? 0 : 1);
        this.#world.counts.add("transition: row freed");
        if (attempts < maxAttempts) this.queue.set(id, { ...row, attempts, isSuspect: true, lease: undefined });
        else {
          this.queue.delete(id);
          this.#world.counts.add("transition: given up after crashes");
          this.#world.deadLetter(row.payload);
        }
      }
      this.#world.queueChanged(this.#world.random.delay(3));
    };
    const isNeeded = () => [...this.queue.values()].some(({ lease }) => lease?.session.isAlive === false);
    const prepare = () => (isNeeded() ? { value: undefined, commit } : { value: undefined });
    this.#call({ name, server, isUnfenced: true }, prepare, () => undefined);
  }

  // ---- faults ----

  /** Somebody deletes a row by hand. Returns its payload. */
  deleteSomeRow(): Uint8Array | undefined {
    const tables = [...this.#rows.values()].filter((table) => table.size > 0);
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
    { name, isExclusive = false, raises, isUnfenced, session, cursorsOf = [] }: CallOptions,
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
    for (const key of commit === undefined ? [] : cursorsOf) {
      const waits = "transition: waited for a cursor";
      const isLocked = yield postgres.lock(tx, `cursor ${key}`, { waits, timeoutMs: lockTimeoutMs });
      if (!isLocked) return [{ kind: "failed" }, 1];
    }
    const isSlow = !landsLate && random.chance(this.#world.slowRate);
    if (isSlow) counts.add("fault: slow commit");
    yield postgres.sleep(random.delay(landsLate || isSlow ? 40 : 0.5));
    if (session?.isAlive === false) return [{ kind: "failed" }, 1];
    if (commit !== undefined) postgres.commit(tx, commit);
    return [{ kind: "ok", value }, 1];
  }
}
