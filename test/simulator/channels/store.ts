/**
 * A model of what the delivery rules need of Postgres: transactions in stages (lock, check and write, commit, answer)
 * that interleave; the fence as a row with an epoch of its own, locked with a fair queue; the lease as a session that is alive;
 * snapshots; answers that are lost while the commit lands, perhaps much later; a crash, which loses no commit; and a
 * failover that loses the last commits.
 */

import { comparePositions, type ParkedMessage, type Position } from "../../../src/channel/index.js";
import { lockTimeoutMs } from "../../../src/store/database.js";
import type { PeerProcess } from "./process.js";
import { Violation } from "../records.js";
import type { MessageRecord } from "./records.js";
import type { World } from "./world.js";

/** Time that a transaction waits for a cursor's row that another one has locked. */

/** Before anything that was ever sent. */
const origin: Position = { epoch: 0, number: 0 };

/** Data that a channel's owner commits at once. */
export interface ChannelCommit {
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

/** A database session: what locks and calls belong to. */
export class Session {
  alive = true;
  onLost: () => void = () => {};
}

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
export interface TransactionHandler {
  isAlive(): boolean;
  run(ended: (how: "commit" | "rollback") => void): void;
  /** Commits the effect of the handler. Returns a function that takes it back. */
  effect(): () => void;
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

export class ModelPostgres {
  readonly epochs = new Map<string, number>();
  /** The epoch of each name whose writes may be committed: raised when those of older ones have ended. */
  readonly #fenceEpochs = new Map<string, number>();
  /** The rest of the row of each name. */
  readonly #raised = new Map<string, Omit<Raised, "epoch">>();
  /** The newest epoch ever committed, also where a failover has lost it. */
  readonly newestEpochs = new Map<string, number>();
  readonly cursors = new Map<number, Position>();
  readonly rows = new Map<number, Map<string, ModelRow>>();
  /** The listener of each channel, where it is another one than the first. */
  readonly owners = new Map<number, string>();
  readonly #attempts = new Map<number, number>();
  /** Positions of each channel that are done beyond its cursor. */
  readonly #marks = new Map<number, Map<string, Position>>();
  /** Parked messages of each channel. */
  readonly #parked = new Map<number, Map<string, ParkedMessage>>();
  /** Marks that a transaction has inserted and not committed. */
  readonly #markLocks = new Map<string, Fence>();
  /** Names that were given back in good order, with the epoch of that. */
  readonly #clean = new Map<string, number>();
  /** Locks on cursor rows, held to the end of a transaction. */
  readonly #cursorLocks = new Map<number, Fence>();
  readonly #leases = new Map<string, Session>();
  /** The rows of names, which who raises an epoch locks to the end of its transaction. */
  readonly #ownerLocks = new Map<string, Fence>();
  readonly #fences = new Map<string, Fence>();
  readonly #sessions = new Set<Session>();
  /** Functions that take back each commit since the last failover, newest last. */
  #history: (() => void)[] = [];
  /** Which server it is: grows with each failover, as a timeline does. */
  generation = 1;
  /** Grows with each failover and crash: what was under way before is never committed. */
  starts = 1;
  available = true;

  readonly #world: World;
  readonly #faults: StoreFaults;

  constructor(world: World, faults: StoreFaults) {
    this.#world = world;
    this.#faults = faults;
  }

  connect(): Session | undefined {
    if (!this.available) return undefined;
    const session = new Session();
    this.#sessions.add(session);
    return session;
  }

  /** The server ends a session: its locks are free, its owner hears of it later. */
  endSession(session: Session, soon = false): void {
    if (!session.alive) return;
    session.alive = false;
    this.#sessions.delete(session);
    for (const [name, holder] of this.#leases) if (holder === session) this.#leases.delete(name);
    const { schedule, random, counts } = this.#world;
    // Its owner may hear of it only when a beat stays out.
    const unheard = !soon && random.chance(0.25);
    if (unheard) counts.add("fault: lost session that is noticed late");
    schedule.after(unheard ? random.between(200, 9_000) : random.delay(5), () => session.onLost());
  }

  endSomeSession(): void {
    if (this.#sessions.size > 0) this.endSession(this.#world.random.pick([...this.#sessions]));
  }

  /** Takes the lease lock of a name, at once or not at all. */
  tryLease(session: Session, name: string): boolean {
    if (!session.alive) return false;
    if (this.#faults.noLease) return true;
    const holder = this.#leases.get(name);
    if (holder !== undefined && holder !== session) return false;
    this.#leases.set(name, session);
    return true;
  }

  releaseLease(session: Session, name: string, epoch: number): void {
    if (this.#leases.get(name) !== session) return;
    this.#leases.delete(name);
    this.#clean.set(name, epoch);
  }

  /** The channels that a listener owns, with their committed cursors. */
  owned(name: string): Map<number, OwnedChannel> {
    const mine = this.#world.channels.filter(({ key }) => this.#world.ownerOf(key) === name);
    return new Map(
      mine.map(({ key, to }) => [
        key,
        {
          cursor: this.cursors.get(key) ?? origin,
          done: this.#faults.readsNoMarks ? [] : [...this.#marksOf(key).values()],
          parked: this.parkedOf(key),
          attempts: this.#attempts.get(key) ?? 0,
          handedOver: to !== name,
        },
      ]),
    );
  }

  /** The row of a name. */
  row(name: string): Raised {
    return { token: undefined, by: undefined, ...this.#raised.get(name), epoch: this.epochs.get(name) ?? 0 };
  }

  /** Raises the name's epoch, and waits at the fence in a second transaction; the session must hold the lease. */
  takeName(session: Session, by: PeerProcess, token: object, answer: (result: CallResult<NameTaken>) => void): void {
    this.#own(session, by, token, (owned) => {
      if (owned.kind !== "ok" || this.#faults.noWaitAtFence) return answer(owned);
      this.#raiseFence(session, by.name, owned.value.epoch, (raised) => answer(raised.kind === "ok" ? owned : raised));
    });
  }

  #own(session: Session, by: PeerProcess, token: object, answer: (result: CallResult<NameTaken>) => void): void {
    const { name } = by;
    this.#transaction(
      { name, exclusive: false, unfenced: true, raises: true, session },
      () => {
        const before = this.epochs.get(name) ?? 0;
        const clock = this.#faults.epochWithoutClock ? 0 : Math.floor(this.#world.clock());
        const epoch = Math.max(before + 1, clock);
        return {
          value: { epoch, wasClean: before === 0 || this.#clean.get(name) === before },
          commit: () => {
            this.#world.checkTaking(name, session);
            const left = this.#faults.takesWithoutToken ? this.row(name).token : token;
            const undo = this.#raise(name, epoch, left, by);
            const undoFence = this.#faults.noWaitAtFence ? this.#passFence(name, epoch) : undefined;
            return () => {
              undoFence?.();
              undo();
              this.#world.epochLost(name, epoch);
            };
          },
        };
      },
      answer,
    );
  }

  #raiseFence(session: Session, name: string, epoch: number, answer: (result: CallResult<undefined>) => void): void {
    this.#transaction(
      { name, exclusive: true, session },
      () => ({
        value: undefined,
        commit: () => (this.epochs.get(name) === epoch ? this.#passFence(name, epoch) : undefined),
      }),
      answer,
    );
  }

  /** Writes of this epoch may be committed from here on. Returns how to take it back. */
  #passFence(name: string, epoch: number): () => void {
    const before = this.#fenceEpochs.get(name);
    this.#fenceEpochs.set(name, epoch);
    return () => {
      if (before === undefined) this.#fenceEpochs.delete(name);
      else this.#fenceEpochs.set(name, before);
    };
  }

  /** Writes of this epoch may be committed: it is the owner's, and the fence's. Asked with the fence locked. */
  #isHeld(name: string, epoch: number): boolean {
    return this.epochs.get(name) === epoch && this.#fenceEpochs.get(name) === epoch;
  }

  #raise(name: string, epoch: number, token: object | undefined, by: PeerProcess | undefined): () => void {
    const before = this.epochs.has(name) ? this.row(name) : undefined;
    this.newestEpochs.set(name, epoch);
    this.epochs.set(name, epoch);
    this.#raised.set(name, { token, by });
    this.#world.epochRaised(name, epoch, by);
    return () => {
      if (before === undefined) this.epochs.delete(name);
      else this.epochs.set(name, before.epoch);
      if (before === undefined) this.#raised.delete(name);
      else this.#raised.set(name, before);
    };
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
    this.#transaction<"stored" | "fenced">(
      { name, exclusive: false, server },
      () => {
        if (!this.#faults.insertWithoutEpochCheck && !this.#isHeld(name, epoch)) return { value: "fenced" };
        return {
          value: "stored",
          commit: () => {
            const table = this.tableOf(key);
            const fresh = rows.filter((row) => !table.has(rowKey(row.position)));
            if (this.#faults.noOnConflict && fresh.length < rows.length) {
              throw new Violation(`an insert of channel ${key} was refused: duplicate key`);
            }
            this.#world.checkInsert(key, rows);
            for (const row of fresh) table.set(rowKey(row.position), row);
            return () => {
              for (const row of fresh) if (table.delete(rowKey(row.position))) this.#world.lost(row.payload);
            };
          },
        };
      },
      answer,
    );
  }

  /**
   * Writes dead letters and marks, moves a cursor forward, and deletes what it passes with the marks of that, fenced by the
   * listener's epoch.
   */
  commitCursor(
    { name, epoch, server, key }: ChannelCall,
    { cursor, dead, done, unparked }: ChannelCommit,
    answer: (result: CallResult<"done" | "fenced" | "notOwned">) => void,
  ): void {
    const faults = this.#faults;
    const marked = [...(faults.deadLettersWithoutMark ? [] : dead.map(({ position }) => position)), ...done];
    const ended = [...dead.map(({ position }) => position), ...unparked, ...(faults.doneUnparks ? done : [])];
    this.#transaction<"done" | "fenced" | "notOwned">(
      { name, exclusive: false, server, cursorOf: key, marks: distinct(marked) },
      () => {
        if (!this.#isHeld(name, epoch)) return { value: "fenced" };
        if (!this.#mayCommit(name, key)) return { value: "notOwned" };
        if (faults.removesMarksFirst) this.#removeMarks(key, cursor);
        return {
          value: "done",
          commit: () => {
            const old = this.cursors.get(key) ?? origin;
            const isNew = (position: Position) =>
              comparePositions(position, old) > 0 && !this.#marksOf(key).has(rowKey(position));
            const wasParked = (position: Position) => this.#parkedIn(key).has(rowKey(position));
            const letters = dead.filter(
              ({ position }) => faults.deadLetterAlways || isNew(position) || wasParked(position),
            );
            const parked = done.find(
              (position) => wasParked(position) && !ended.some((one) => comparePositions(one, position) === 0),
            );
            if (parked !== undefined)
              throw new Violation(`message ${rowKey(parked)} of channel ${key} is marked as done while it is parked`);
            const undoParked = ended.filter(wasParked).map((position) => this.#unpark(key, position));
            const undoMarks = marked.filter(isNew).map((position) => this.#mark(key, rowKey(position), position));
            const undo = this.#moveCursor(key, cursor);
            if (undo === undefined && letters.length + undoMarks.length + undoParked.length === 0) return undefined;
            const undoLetters = letters.map(({ record }) => this.#world.deadLetter(record));
            return () => {
              undo?.();
              for (const take of [...undoLetters, ...undoMarks, ...undoParked]) take();
            };
          },
        };
      },
      answer,
    );
  }

  /** Parks messages of one channel: with their marks, unless they are done. */
  park(
    { name, epoch, server, key }: ChannelCall,
    messages: readonly ParkedMessage[],
    answer: (result: CallResult<"done" | "fenced" | "notOwned">) => void,
  ): void {
    const marks = messages.map(({ message }) => message.position).sort(comparePositions);
    this.#transaction<"done" | "fenced" | "notOwned">(
      { name, exclusive: false, server, cursorOf: key, marks },
      () => {
        if (!this.#isHeld(name, epoch)) return { value: "fenced" };
        if (!this.#mayCommit(name, key)) return { value: "notOwned" };
        return {
          value: "done",
          commit: () => {
            const parked = this.#parkedIn(key);
            const undo = messages.map((one) => {
              const { position, payload } = one.message;
              const id = rowKey(position);
              const before = parked.get(id);
              const isPassed = comparePositions(position, this.cursors.get(key) ?? origin) <= 0;
              if (before === undefined && (isPassed || this.#marksOf(key).has(id))) return () => undefined;
              parked.set(id, one);
              if (before !== undefined) return () => parked.set(id, before);
              const undoMark = this.#faults.parksWithoutMark ? undefined : this.#mark(key, id, position);
              return () => {
                undoMark?.();
                parked.delete(id);
                this.#world.lost(payload);
              };
            });
            return () => {
              for (const take of undo) take();
            };
          },
        };
      },
      answer,
    );
  }

  /** Counts a start of a parked message; 0 if it is not there. */
  countParked(
    { name, epoch, server, key }: ChannelCall,
    position: Position,
    answer: (result: CallResult<number | "fenced">) => void,
  ): void {
    this.#transaction<number | "fenced">(
      { name, exclusive: false, server },
      () => {
        if (!this.#isHeld(name, epoch)) return { value: "fenced" };
        const parked = this.#parkedIn(key);
        const id = rowKey(position);
        const before = parked.get(id);
        if (before === undefined) return { value: 0 };
        const attempts = before.attempts + 1;
        return {
          value: attempts,
          commit: () => {
            if (this.#faults.countsNoParked || !parked.has(id)) return undefined;
            parked.set(id, { ...before, attempts });
            return () => parked.set(id, before);
          },
        };
      },
      answer,
    );
  }

  /** Parked messages of a channel, in order. */
  parkedOf(key: number): ParkedMessage[] {
    const rows = [...this.#parkedIn(key).values()];
    return rows.sort((one, other) => comparePositions(one.message.position, other.message.position));
  }

  #parkedIn(key: number): Map<string, ParkedMessage> {
    let parked = this.#parked.get(key);
    if (parked === undefined) {
      parked = new Map();
      this.#parked.set(key, parked);
    }
    return parked;
  }

  /** Returns how to take it back. */
  #unpark(key: number, position: Position): () => void {
    const parked = this.#parkedIn(key);
    const id = rowKey(position);
    const before = parked.get(id);
    parked.delete(id);
    return () => before !== undefined && parked.set(id, before);
  }

  /** Counts a start of the message behind the cursor. */
  countAttempt(
    name: string,
    epoch: number,
    server: number,
    key: number,
    answer: (result: CallResult<number | "fenced">) => void,
  ): void {
    this.#transaction<number | "fenced">(
      { name, exclusive: false, server, cursorOf: key },
      () => {
        if (!this.#isHeld(name, epoch)) return { value: "fenced" };
        const starts = (this.#attempts.get(key) ?? 0) + 1;
        return {
          value: starts,
          commit: () => {
            if (!this.#faults.countsNoAttempts) this.#attempts.set(key, starts);
            return () => this.#attempts.set(key, starts - 1);
          },
        };
      },
      answer,
    );
  }

  /** Hands a listener's channels over to another one, and fences the old one off. */
  reassign(from: string, to: string, done: (keys: readonly number[]) => void): void {
    let keys: number[] = [];
    this.#transaction(
      { name: from, exclusive: true, raises: true },
      () => ({
        value: undefined,
        commit: () => {
          keys = [...this.owned(from).keys()];
          const before = this.row(from);
          const raised = Math.max(before.epoch + 1, Math.floor(this.#world.clock()));
          const left = this.#faults.reassignsWithToken ? before.token : undefined;
          const undo = this.#faults.reassignsWithoutEpoch ? undefined : this.#raise(from, raised, left, undefined);
          const undoFence = this.#faults.reassignsWithoutEpoch ? undefined : this.#passFence(from, raised);
          for (const key of keys) this.owners.set(key, to);
          if (keys.some((key) => this.#parkedIn(key).size > 0)) {
            this.#world.counts.add("transition: channels handed over with something parked");
          }
          return () => {
            for (const key of keys) this.owners.set(key, from);
            undoFence?.();
            undo?.();
          };
        },
      }),
      () => done(keys),
    );
  }

  /** Gives a channel back to the listener that it was made for: with a topic, because that serves it. */
  giveBack(
    { name, epoch, server, key }: ChannelCall,
    topicId: number | undefined,
    answer: (result: CallResult<"back" | "stays" | "fenced">) => void,
  ): void {
    this.#transaction<"back" | "stays" | "fenced">(
      { name, exclusive: true, server },
      () => {
        if (!this.#isHeld(name, epoch)) return { value: "fenced" };
        const goes =
          topicId === undefined
            ? this.#world.isToGiveBack(key, name)
            : this.#world.heirOf(key, name, topicId) !== undefined;
        if (!goes || this.#world.ownerOf(key) !== name) return { value: "stays" };
        return {
          value: "back",
          commit: () => {
            this.#world.checkGivenBack(name, key);
            this.owners.delete(key);
            const how = topicId === undefined ? "given back" : "passed on";
            if (this.#parkedIn(key).size > 0)
              this.#world.counts.add(`transition: channel ${how} with something parked`);
            return () => this.owners.set(key, name);
          },
        };
      },
      answer,
    );
  }

  /**
   * A handler's transaction: runs the handler, inserts the mark, for which it waits if another transaction has inserted it,
   * and then reads the cursor and the epoch, without a lock. Of a parked message it deletes the row, in place of all that.
   */
  handle(
    { name, epoch, server, key }: ChannelCall,
    position: Position,
    isParked: boolean,
    handler: TransactionHandler,
    answer: (result: CallResult<"committed" | "duplicate" | "rolledBack" | "fenced" | "notOwned">) => void,
  ): void {
    const { schedule, random, counts } = this.#world;
    const { starts } = this;
    const tx = {};
    let over = false;
    const end = (result: Parameters<typeof answer>[0], delayMs: number): void => {
      if (over) return;
      over = true;
      schedule.after(delayMs, () => answer(result));
    };
    const gone = () => starts !== this.starts;
    if (!this.available || server !== this.generation || random.chance(this.#world.callFaultRate)) {
      end({ kind: "failed" }, random.delay(2));
      return;
    }
    const mark = this.#faults.marksByOwnersEpoch ? `${epoch} ${rowKey(position)}` : rowKey(position);
    /** Verdict for a statement at this moment. */
    const verdict = () => {
      if (this.#faults.marksWithoutFence) return "committed";
      const isPassed = comparePositions(this.cursors.get(key) ?? origin, position) >= 0;
      if (isPassed && !isParked) return "duplicate";
      if (this.epochs.get(name) !== epoch) return "fenced";
      return this.#mayCommit(name, key) ? "committed" : "notOwned";
    };
    schedule.after(random.delay(1), () => {
      if (gone() || !this.available) return end({ kind: "failed" }, random.delay(3));
      // A call whose answer is lost lives on in the server until that finds out.
      const cut = random.chance(this.#world.callFaultRate);
      const landsLate = cut && random.chance(0.6);
      handler.run((how) => {
        if (!handler.isAlive()) return;
        if (gone()) return end({ kind: "unknown" }, random.delay(3));
        if (how === "rollback") return end({ kind: "ok", value: "rolledBack" }, random.delay(2));
        if (cut && !landsLate) return end({ kind: "failed" }, random.delay(2));
        if (landsLate) {
          counts.add("fault: unknown transaction that lands late");
          end({ kind: "unknown" }, random.delay(3));
        }
        const lost = () => end({ kind: "unknown" }, random.delay(3));
        const early = this.#faults.readsBeforeMark ? verdict() : undefined;
        schedule.after(random.delay(landsLate ? 40 : 0.5), () => {
          if (gone()) return lost();
          this.#lockMark(key, mark, tx, () => {
            const isThere = isParked ? !this.#parkedIn(key).has(rowKey(position)) : this.#marksOf(key).has(mark);
            const finish = (value: "committed" | "duplicate" | "fenced" | "notOwned") => {
              this.#releaseIn(this.#markLocks, `${key} ${mark}`, tx);
              end({ kind: "ok", value }, random.delay(1));
            };
            if (gone()) return lost();
            if (isThere) return finish("duplicate");
            schedule.after(random.delay(0.5), () => {
              if (gone()) return lost();
              const value = early ?? verdict();
              const slow = random.chance(this.#world.slowRate);
              schedule.after(random.delay(slow ? 40 : 0.5), () => {
                if (gone()) return lost();
                if (value === "committed") {
                  const unparks = isParked && !this.#faults.leavesParked;
                  const undoMark = isParked ? unparks && this.#unpark(key, position) : this.#mark(key, mark, position);
                  const undoEffect = handler.effect();
                  this.#remember(() => {
                    if (undoMark) undoMark();
                    undoEffect();
                  });
                }
                finish(value);
              });
            });
          });
        });
      });
    });
  }

  #marksOf(key: number): Map<string, Position> {
    let marks = this.#marks.get(key);
    if (marks === undefined) {
      marks = new Map();
      this.#marks.set(key, marks);
    }
    return marks;
  }

  /** Returns how to take it back. */
  #mark(key: number, mark: string, position: Position): () => void {
    const marks = this.#marksOf(key);
    marks.set(mark, position);
    return () => marks.delete(mark);
  }

  /** Removes the marks of what a cursor has passed. Returns how to take it back. */
  #removeMarks(key: number, cursor: Position): () => void {
    const marks = this.#marksOf(key);
    const removed = [...marks].filter(([, position]) => comparePositions(position, cursor) <= 0);
    for (const [mark] of removed) marks.delete(mark);
    return () => {
      for (const [mark, position] of removed) marks.set(mark, position);
    };
  }

  /** Inserts a mark: waits for the end of a transaction that has inserted the same. */
  #lockMark(key: number, mark: string, tx: object, granted: () => void): void {
    const id = `${key} ${mark}`;
    const { exclusive } = this.#markLocks.get(id) ?? {};
    if (exclusive !== undefined && exclusive !== tx) this.#world.counts.add("transition: waited for a mark");
    this.#lockIn(this.#markLocks, id, tx, true, granted);
  }

  /** Reads something in one snapshot. */
  read<T>(look: () => T, answer: (result: CallResult<T>) => void): void {
    const { schedule, random } = this.#world;
    const { starts } = this;
    schedule.after(random.delay(1), () => {
      if (!this.available || starts !== this.starts || random.chance(this.#world.callFaultRate)) {
        schedule.after(random.delay(2), () => answer({ kind: "failed" }));
        return;
      }
      const value = look();
      const slow = random.chance(this.#world.slowRate);
      if (slow) this.#world.counts.add("fault: slow query");
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
    const table = this.#world.random.pick(tables);
    const row = this.#world.random.pick([...table.values()]);
    table.delete(rowKey(row.position));
    return row.payload;
  }

  /** A standby takes over that has not seen the last commits; everybody is cut off. */
  failover(): void {
    this.generation += 1;
    this.#loseCommits();
    this.#startAgain();
  }

  /** The same server comes back, with all that it has committed, which was on disk; everybody is cut off. */
  crash(): void {
    if (this.#faults.commitsInMemory) this.#loseCommits();
    this.#startAgain();
  }

  #loseCommits(): void {
    const lost = Math.min(this.#history.length, this.#world.random.between(1, 6));
    for (let count = 0; count < lost; count++) this.#history.pop()?.();
    this.#history = [];
  }

  #startAgain(): void {
    this.starts += 1;
    const locks = [this.#ownerLocks, this.#fences, this.#cursorLocks, this.#markLocks];
    const waiting = locks.flatMap((some) => [...some.values()].flatMap((fence) => fence.waiting));
    this.#ownerLocks.clear();
    this.#fences.clear();
    this.#cursorLocks.clear();
    this.#markLocks.clear();
    for (const { granted } of waiting) granted();
    for (const session of [...this.#sessions]) this.endSession(session, true);
  }

  #mayCommit(name: string, key: number): boolean {
    return this.#faults.commitsForAnybody === true || this.#world.ownerOf(key) === name;
  }

  /** Returns how to take it back; undefined if the cursor was there already. */
  #moveCursor(key: number, cursor: Position): (() => void) | undefined {
    const old = this.cursors.get(key);
    if (old !== undefined && comparePositions(old, cursor) >= 0) return undefined;
    this.#world.checkCursor(key, cursor);
    this.cursors.set(key, cursor);
    const attempts = this.#attempts.get(key);
    this.#attempts.delete(key);
    const table = this.tableOf(key);
    // What it passes now: leftovers of before wait for the poll.
    const gone = [...table.values()].filter(
      ({ position }) => comparePositions(position, old ?? origin) > 0 && comparePositions(position, cursor) <= 0,
    );
    for (const row of gone) table.delete(rowKey(row.position));
    const undoMarks = this.#removeMarks(key, cursor);
    return () => {
      undoMarks();
      if (old === undefined) this.cursors.delete(key);
      else this.cursors.set(key, old);
      if (attempts !== undefined) this.#attempts.set(key, attempts);
      for (const row of gone) table.set(rowKey(row.position), row);
    };
  }

  #remember(undo: () => void): void {
    this.#history.push(undo);
    if (this.#history.length > 12) this.#history.shift();
  }

  tableOf(key: number): Map<string, ModelRow> {
    let table = this.rows.get(key);
    if (table === undefined) {
      table = new Map();
      this.rows.set(key, table);
    }
    return table;
  }

  /**
   * A transaction behind the fence of a name. With `cursorOf` it also waits for that channel's cursor, and for the marks that
   * it inserts, once it may write.
   */
  #transaction<T>(
    options: {
      name: string;
      exclusive: boolean;
      /** True if the statement raises the epoch of the name. */
      raises?: boolean;
      /** True if the statement does not wait at the fence. */
      unfenced?: boolean;
      session?: Session;
      server?: number;
      cursorOf?: number;
      /** In order. */
      marks?: readonly Position[];
    },
    write: () => { value: T; commit?: () => (() => void) | undefined },
    answer: (result: CallResult<T>) => void,
  ): void {
    const { schedule, random, counts } = this.#world;
    const { starts } = this;
    const tx = {};
    let answered = false;
    const reply = (result: CallResult<T>, delay: number) => {
      if (answered) return;
      answered = true;
      schedule.after(delay, () => answer(result));
    };
    const gone = () => starts !== this.starts;
    // A new connection to another server is not used before the lease is taken anew there.
    const stranger = options.server !== undefined && options.server !== this.generation;
    if (stranger) counts.add("transition: another server refused");
    if (!this.available || stranger) {
      reply({ kind: "failed" }, random.delay(2));
      return;
    }
    // The client may lose its connection at any stage; the server then either never commits, or commits late.
    const cut = random.chance(this.#world.callFaultRate);
    const landsLate = cut && random.chance(0.6);
    const { cursorOf, marks = [] } = options;
    const finish = () => {
      this.#release(options.name, tx);
      this.#releaseIn(this.#ownerLocks, options.name, tx);
      if (cursorOf === undefined) return;
      this.#releaseIn(this.#cursorLocks, cursorOf, tx);
      for (const mark of marks) this.#releaseIn(this.#markLocks, `${cursorOf} ${rowKey(mark)}`, tx);
    };
    schedule.after(random.delay(1), () => {
      if (gone()) return reply({ kind: "unknown" }, random.delay(3));
      if (cut && !landsLate) {
        counts.add("fault: call lost before its commit");
        return reply(random.chance(0.5) ? { kind: "failed" } : { kind: "unknown" }, random.delay(3));
      }
      const commit = (prepared: ReturnType<typeof write>) => {
        const slow = !landsLate && random.chance(this.#world.slowRate);
        if (slow) counts.add("fault: slow commit");
        schedule.after(random.delay(landsLate || slow ? 40 : 0.5), () => {
          if (gone()) return reply({ kind: "unknown" }, random.delay(3));
          if (options.session !== undefined && !options.session.alive) {
            finish();
            return reply({ kind: "failed" }, random.delay(1));
          }
          const undo = prepared.commit?.();
          if (typeof undo === "function") this.#remember(undo);
          finish();
          reply({ kind: "ok", value: prepared.value }, random.delay(1));
        });
      };
      const locked = () => {
        schedule.after(random.delay(0.5), () => {
          if (gone()) return reply({ kind: "unknown" }, random.delay(3));
          if (landsLate) {
            counts.add("fault: unknown commit that lands late");
            reply({ kind: "unknown" }, random.delay(3));
          }
          const prepared = write();
          if (cursorOf === undefined || prepared.commit === undefined) return commit(prepared);
          const lockMarks = (from: number): void => {
            const mark = marks[from];
            if (gone()) reply({ kind: "unknown" }, random.delay(3));
            else if (mark === undefined) commit(prepared);
            else this.#lockMark(cursorOf, rowKey(mark), tx, () => lockMarks(from + 1));
          };
          this.#lockCursor(
            cursorOf,
            tx,
            () => lockMarks(0),
            () => {
              finish();
              reply({ kind: "failed" }, random.delay(1));
            },
          );
        });
      };
      const atFence = () => {
        if (gone()) return reply({ kind: "unknown" }, random.delay(3));
        if (options.unfenced || (this.#faults.checkWithoutLock && !options.exclusive)) locked();
        else this.#lock(options.name, tx, options.exclusive, locked);
      };
      if (options.raises) this.#lockIn(this.#ownerLocks, options.name, tx, true, atFence);
      else atFence();
    });
  }

  #lock(name: string, tx: object, exclusive: boolean, granted: () => void): void {
    this.#lockIn(this.#fences, name, tx, exclusive, granted);
  }

  #release(name: string, tx: object): void {
    this.#releaseIn(this.#fences, name, tx);
  }

  #lockIn<Key>(locks: Map<Key, Fence>, key: Key, tx: object, exclusive: boolean, granted: () => void): void {
    let fence = locks.get(key);
    if (fence === undefined) {
      fence = { exclusive: undefined, shared: new Set(), waiting: [] };
      locks.set(key, fence);
    }
    fence.waiting.push({ tx, exclusive, granted });
    this.#grant(fence);
  }

  /** Locks a channel's cursor to the end of the transaction, or gives up after the lock timeout. */
  #lockCursor(key: number, tx: object, granted: () => void, timedOut: () => void): void {
    let waits = true;
    this.#lockIn(this.#cursorLocks, key, tx, true, () => {
      waits = false;
      granted();
    });
    if (!waits) return;
    this.#world.counts.add("transition: waited for a cursor");
    this.#world.schedule.after(lockTimeoutMs, () => {
      const waiting = this.#cursorLocks.get(key)?.waiting ?? [];
      const index = waiting.findIndex((other) => other.tx === tx);
      if (index < 0) return;
      waiting.splice(index, 1);
      timedOut();
    });
  }

  #releaseIn<Key>(locks: Map<Key, Fence>, key: Key, tx: object): void {
    const fence = locks.get(key);
    if (fence === undefined) return;
    if (fence.exclusive === tx) fence.exclusive = undefined;
    fence.shared.delete(tx);
    this.#grant(fence);
  }

  #grant(fence: Fence): void {
    for (let next = fence.waiting[0]; next; next = fence.waiting[0]) {
      if (fence.exclusive !== undefined || (next.exclusive && fence.shared.size > 0)) return;
      fence.waiting.shift();
      if (next.exclusive) fence.exclusive = next.tx;
      else fence.shared.add(next.tx);
      next.granted();
    }
  }
}
