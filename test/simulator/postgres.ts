/**
 * A model of what the delivery rules need of Postgres: transactions in stages (lock, check and write, commit, answer)
 * that interleave; the fence as a transaction-level lock with a fair queue; the lease as a session-level lock;
 * snapshots; answers that are lost while the commit lands, perhaps much later; and a failover that loses the last
 * commits.
 */
import { comparePositions, type Position } from "../../src/channel/index.js";
import { Violation } from "./records.js";
import type { World } from "./world.js";

/** What a stored row carries: the payload object is the message's identity in the simulation. */
export interface ModelRow {
  readonly position: Position;
  readonly topicKey: number;
  readonly payload: Uint8Array;
}

/** How a call ended for the caller. */
export type CallResult<T> = { kind: "ok"; value: T } | { kind: "failed" } | { kind: "unknown" };

/** A database session: what locks and calls belong to. */
export class Session {
  alive = true;
  onLost: () => void = () => {};
}

interface Fence {
  exclusive: object | undefined;
  readonly shared: Set<object>;
  readonly waiting: { tx: object; exclusive: boolean; granted: () => void }[];
}

/** Departures from the rules that a mutant may ask for. */
export interface StoreFaults {
  readonly insertWithoutEpochCheck?: boolean;
  readonly checkWithoutLock?: boolean;
  readonly epochWithoutClock?: boolean;
  readonly noLease?: boolean;
  readonly noOnConflict?: boolean;
}

const rowKey = (position: Position) => `${position.epoch}/${position.number}`;

export class ModelPostgres {
  readonly epochs = new Map<string, number>();
  /** The newest epoch ever committed, also where a failover has lost it. */
  readonly newestEpochs = new Map<string, number>();
  readonly cursors = new Map<number, Position>();
  readonly rows = new Map<number, Map<string, ModelRow>>();
  private readonly leases = new Map<string, Session>();
  private readonly fences = new Map<string, Fence>();
  private readonly sessions = new Set<Session>();
  /** How to take back each commit since the last failover, newest last. */
  private history: (() => void)[] = [];
  /** Which server it is: grows with each failover, as a timeline does. */
  generation = 1;
  available = true;

  constructor(
    private readonly world: World,
    private readonly faults: StoreFaults,
  ) {}

  connect(): Session | undefined {
    if (!this.available) return undefined;
    const session = new Session();
    this.sessions.add(session);
    return session;
  }

  /** The server ends a session: its locks are free, its owner hears of it later. */
  endSession(session: Session, soon = false): void {
    if (!session.alive) return;
    session.alive = false;
    this.sessions.delete(session);
    for (const [name, holder] of this.leases) if (holder === session) this.leases.delete(name);
    const { schedule, random, counts } = this.world;
    // Its owner may hear of it only when a beat stays out.
    const unheard = !soon && random.chance(0.25);
    if (unheard) counts.add("fault: lost session that is noticed late");
    schedule.after(unheard ? random.between(200, 9_000) : random.delay(5), () => session.onLost());
  }

  endSomeSession(): void {
    if (this.sessions.size > 0) this.endSession(this.world.random.pick([...this.sessions]));
  }

  /** Takes the lease lock of a name, at once or not at all. */
  tryLease(session: Session, name: string): boolean {
    if (!session.alive) return false;
    if (this.faults.noLease) return true;
    const holder = this.leases.get(name);
    if (holder !== undefined && holder !== session) return false;
    this.leases.set(name, session);
    return true;
  }

  releaseLease(session: Session, name: string): void {
    if (this.leases.get(name) === session) this.leases.delete(name);
  }

  /** Raises the name's epoch under the exclusive fence; the session must hold the lease. */
  takeName(session: Session, name: string, answer: (result: CallResult<number>) => void): void {
    this.transaction(
      { name, exclusive: true, session },
      () => {
        const before = this.epochs.get(name) ?? 0;
        const clock = this.faults.epochWithoutClock ? 0 : Math.floor(this.world.clock());
        const epoch = Math.max(before + 1, clock);
        return {
          value: epoch,
          commit: () => {
            const old = this.epochs.get(name);
            this.newestEpochs.set(name, epoch);
            this.epochs.set(name, epoch);
            return () => (old === undefined ? this.epochs.delete(name) : this.epochs.set(name, old));
          },
        };
      },
      answer,
    );
  }

  /** Inserts rows of one channel, fenced by the sender's epoch. */
  insert(
    name: string,
    epoch: number,
    server: number,
    key: number,
    rows: readonly ModelRow[],
    answer: (result: CallResult<"stored" | "fenced">) => void,
  ): void {
    this.transaction<"stored" | "fenced">(
      { name, exclusive: false, server },
      () => {
        if (!this.faults.insertWithoutEpochCheck && this.epochs.get(name) !== epoch) return { value: "fenced" };
        return {
          value: "stored",
          commit: () => {
            const table = this.tableOf(key);
            const fresh = rows.filter((row) => !table.has(rowKey(row.position)));
            if (this.faults.noOnConflict && fresh.length < rows.length) {
              throw new Violation(`an insert of channel ${key} was refused: duplicate key`);
            }
            this.world.checkInsert(key, rows);
            for (const row of fresh) table.set(rowKey(row.position), row);
            return () => {
              for (const row of fresh) if (table.delete(rowKey(row.position))) this.world.lost(row.payload);
            };
          },
        };
      },
      answer,
    );
  }

  /** Moves a cursor forward and deletes what it passes, fenced by the listener's epoch. */
  commitCursor(
    name: string,
    epoch: number,
    server: number,
    key: number,
    cursor: Position,
    answer: (result: CallResult<"done" | "fenced">) => void,
  ): void {
    this.transaction<"done" | "fenced">(
      { name, exclusive: false, server },
      () => {
        if (this.epochs.get(name) !== epoch) return { value: "fenced" };
        return {
          value: "done",
          commit: () => {
            const old = this.cursors.get(key);
            if (old !== undefined && comparePositions(old, cursor) >= 0) return undefined;
            this.world.checkCursor(key, cursor);
            this.cursors.set(key, cursor);
            const table = this.tableOf(key);
            const gone = [...table.values()].filter((row) => comparePositions(row.position, cursor) <= 0);
            for (const row of gone) table.delete(rowKey(row.position));
            return () => {
              if (old === undefined) this.cursors.delete(key);
              else this.cursors.set(key, old);
              for (const row of gone) table.set(rowKey(row.position), row);
            };
          },
        };
      },
      answer,
    );
  }

  /** Reads something in one snapshot. */
  read<T>(look: () => T, answer: (result: CallResult<T>) => void): void {
    const { schedule, random } = this.world;
    const generation = this.generation;
    schedule.after(random.delay(1), () => {
      if (!this.available || generation !== this.generation || random.chance(this.world.callFaultRate)) {
        schedule.after(random.delay(2), () => answer({ kind: "failed" }));
        return;
      }
      const value = look();
      const slow = random.chance(this.world.slowRate);
      if (slow) this.world.counts.add("fault: slow query");
      schedule.after(random.delay(slow ? 150 : 1), () => answer({ kind: "ok", value }));
    });
  }

  /** Rows of a channel above a position, in order. */
  rowsAbove(key: number, after: Position): ModelRow[] {
    return [...this.tableOf(key).values()]
      .filter((row) => comparePositions(row.position, after) > 0)
      .sort((a, b) => comparePositions(a.position, b.position));
  }

  deleteStale(key: number, cursor: Position): void {
    const table = this.tableOf(key);
    for (const row of [...table.values()]) {
      if (comparePositions(row.position, cursor) <= 0) table.delete(rowKey(row.position));
    }
  }

  /** Somebody deletes a row by hand. Returns its payload. */
  deleteSomeRow(): Uint8Array | undefined {
    const tables = [...this.rows.values()].filter((table) => table.size > 0);
    if (tables.length === 0) return undefined;
    const table = this.world.random.pick(tables);
    const row = this.world.random.pick([...table.values()]);
    table.delete(rowKey(row.position));
    return row.payload;
  }

  /** A standby takes over that has not seen the last commits; everybody is cut off. */
  failover(): void {
    this.generation += 1;
    const lost = Math.min(this.history.length, this.world.random.between(1, 6));
    for (let count = 0; count < lost; count++) this.history.pop()?.();
    this.history = [];
    const waiting = [...this.fences.values()].flatMap((fence) => fence.waiting);
    this.fences.clear();
    for (const { granted } of waiting) granted();
    for (const session of [...this.sessions]) this.endSession(session, true);
  }

  tableOf(key: number): Map<string, ModelRow> {
    let table = this.rows.get(key);
    if (table === undefined) {
      table = new Map();
      this.rows.set(key, table);
    }
    return table;
  }

  private transaction<T>(
    options: { name: string; exclusive: boolean; session?: Session; server?: number },
    write: () => { value: T; commit?: () => (() => void) | undefined },
    answer: (result: CallResult<T>) => void,
  ): void {
    const { schedule, random, counts } = this.world;
    const generation = this.generation;
    const tx = {};
    let answered = false;
    const reply = (result: CallResult<T>, delay: number) => {
      if (answered) return;
      answered = true;
      schedule.after(delay, () => answer(result));
    };
    const gone = () => generation !== this.generation;
    // A new connection to another server is not used before the lease is taken anew there.
    const stranger = options.server !== undefined && options.server !== generation;
    if (stranger) counts.add("transition: another server refused");
    if (!this.available || stranger) {
      reply({ kind: "failed" }, random.delay(2));
      return;
    }
    // The client may lose its connection at any stage; the server then either never commits, or commits late.
    const cut = random.chance(this.world.callFaultRate);
    const landsLate = cut && random.chance(0.6);
    const finish = () => this.release(options.name, tx);
    schedule.after(random.delay(1), () => {
      if (gone()) return reply({ kind: "unknown" }, random.delay(3));
      if (cut && !landsLate) {
        counts.add("fault: call lost before its commit");
        return reply(random.chance(0.5) ? { kind: "failed" } : { kind: "unknown" }, random.delay(3));
      }
      const locked = () => {
        schedule.after(random.delay(0.5), () => {
          if (gone()) return reply({ kind: "unknown" }, random.delay(3));
          const prepared = write();
          if (landsLate) {
            counts.add("fault: unknown commit that lands late");
            reply({ kind: "unknown" }, random.delay(3));
          }
          const slow = !landsLate && random.chance(this.world.slowRate);
          if (slow) counts.add("fault: slow commit");
          schedule.after(random.delay(landsLate || slow ? 40 : 0.5), () => {
            if (gone()) return reply({ kind: "unknown" }, random.delay(3));
            if (options.session !== undefined && !options.session.alive) {
              finish();
              return reply({ kind: "failed" }, random.delay(1));
            }
            const undo = prepared.commit?.();
            if (typeof undo === "function") this.history.push(undo);
            if (this.history.length > 12) this.history.shift();
            finish();
            reply({ kind: "ok", value: prepared.value }, random.delay(1));
          });
        });
      };
      if (this.faults.checkWithoutLock && !options.exclusive) locked();
      else this.lock(options.name, tx, options.exclusive, locked);
    });
  }

  private lock(name: string, tx: object, exclusive: boolean, granted: () => void): void {
    let fence = this.fences.get(name);
    if (fence === undefined) {
      fence = { exclusive: undefined, shared: new Set(), waiting: [] };
      this.fences.set(name, fence);
    }
    fence.waiting.push({ tx, exclusive, granted });
    this.grant(fence);
  }

  private release(name: string, tx: object): void {
    const fence = this.fences.get(name);
    if (fence === undefined) return;
    if (fence.exclusive === tx) fence.exclusive = undefined;
    fence.shared.delete(tx);
    this.grant(fence);
  }

  private grant(fence: Fence): void {
    for (let next = fence.waiting[0]; next; next = fence.waiting[0]) {
      if (fence.exclusive !== undefined || (next.exclusive && fence.shared.size > 0)) return;
      fence.waiting.shift();
      if (next.exclusive) fence.exclusive = next.tx;
      else fence.shared.add(next.tx);
      next.granted();
    }
  }
}
