/**
 * Postgres as the outbox sees it: transactions with xids, snapshots, key locks, three slots, saved positions, the flag that
 * says whether the relay sleeps; and what a crash, a failover and a restored dump make of them.
 */
import type {
  DeadOutboxMessage,
  OutboxMessage,
  OutboxPosition,
  Snapshot,
  TurnStep,
} from "../../../src/outbox/relay.js";
import { Violation } from "../records.js";
import type { OutboxFaults } from "./mutants.js";
import type { OutboxWorld } from "./world.js";

/** A message and what became of it. */
export interface Row extends OutboxMessage {
  readonly messageId: string;
  readonly tx: Transaction;
  readonly enqueuedAt: number;
  readonly slot: number;
  /** The column: the transaction that wrote it, unless it came from another cluster. */
  xid: number;
  cluster: number;
  /** A savepoint was rolled back, or the slot truncated. */
  isGone: boolean;
  /** Mutants: what this is a copy of. */
  readonly original?: Row;
  /** It was due later. */
  readonly later?: LaterRow;
}

/** A message that is due later. */
export interface LaterRow {
  readonly id: bigint;
  readonly destination: string;
  readonly lane: string | undefined;
  readonly messageId: string;
  readonly tx: Transaction;
  readonly enqueuedAt: number;
  readonly dueAt: number;
  /** The column: as of {@link Row}. */
  xid: number;
  isGone: boolean;
}

/** A transaction of an application. */
export class Transaction {
  xid: number | undefined;
  state: "running" | "committed" | "aborted" = "running";
  readonly rows: Row[] = [];
  readonly laterRows: LaterRow[] = [];
  /** Of a turn: those that it has brought in. */
  readonly brought: LaterRow[] = [];
  /** The locks on keys, with how many rows there were when each was taken. */
  readonly locks = new Map<string, number>();
  isNotifying = false;
  committedAt = 0;
  commitOrder = 0;
  /** A commit that does not wait for the disk. */
  readonly isAsynchronous: boolean;
  /** It reads with the snapshot that it began with. */
  readonly slotSeen: number | undefined;

  constructor(isAsynchronous: boolean, slotSeen: number | undefined) {
    this.isAsynchronous = isAsynchronous;
    this.slotSeen = slotSeen;
  }
}

interface SavedTurn {
  readonly turn: bigint;
  readonly owner: object;
  readonly position: OutboxPosition;
  readonly cluster: number;
  readonly dead: readonly DeadOutboxMessage<Row>[];
}

/** A row as it was before its message was adopted. */
interface AdoptedRow {
  readonly row: Row;
  readonly xid: number;
  readonly cluster: number;
}

/** What is in the log of changes, in order: a crash and a failover cut it. */
type Change =
  | { readonly kind: "write"; readonly xid: number; readonly id: bigint }
  | { readonly kind: "commit"; readonly tx: Transaction }
  | { readonly kind: "save"; readonly xid: number; readonly adopted: readonly AdoptedRow[] }
  | { readonly kind: "truncate"; readonly xid: number; readonly rows: readonly Row[]; readonly slot: number };

export type TurnAnswer =
  | {
      readonly kind: "done";
      readonly isSaved: boolean;
      readonly found?: { to: Snapshot; messages: readonly Row[]; hasMore: boolean };
      readonly due?: { brought: number; next: { from: number; inMs: number } | undefined };
    }
  | { readonly kind: "deposed" };

interface ReadSnapshot {
  readonly xmax: number;
  readonly xip: readonly number[];
}

export class OutboxDatabase {
  readonly #world: OutboxWorld;
  readonly #faults: OutboxFaults;
  rows: Row[] = [];
  later: LaterRow[] = [];
  turns: SavedTurn[] = [];
  isAsleep = false;
  available = true;
  /** Grows when the processes' sessions end. */
  incarnation = 1;
  cluster = 1;
  slot = 0;
  #nextXid = 100;
  #nextId = 1n;
  /** The last id that was given on the cluster before. */
  #restoredId = 0n;
  #commits = 0;
  readonly #running = new Set<Transaction>();
  #log: Change[] = [];
  #durable = 0;
  readonly #locks = new Map<string, { holder: Transaction; waiting: { tx: Transaction; go: () => void }[] }>();

  constructor(world: OutboxWorld, faults: OutboxFaults) {
    this.#world = world;
    this.#faults = faults;
  }

  begin(): Transaction {
    const { random } = this.#world;
    const tx = new Transaction(random.chance(0.2), random.chance(0.2) ? this.slot : undefined);
    this.#running.add(tx);
    return tx;
  }

  /** The transaction writes something of its own. */
  assignXid(tx: Transaction): void {
    tx.xid ??= this.#nextXid++;
  }

  /** Waits for the key, then writes the message. */
  enqueue(tx: Transaction, destination: string, key: string | undefined, done: () => void): void {
    const lane = key === undefined ? undefined : `${destination} ${key}`;
    const write = (): void => {
      if (tx.state !== "running") return;
      this.assignXid(tx);
      const row: Row = {
        id: this.#nextId++,
        lane,
        destination,
        bytes: 100,
        copyOf: undefined,
        messageId: this.#world.newMessageId(),
        tx,
        enqueuedAt: this.#world.schedule.now,
        slot: tx.slotSeen ?? this.slot,
        xid: tx.xid!,
        cluster: this.cluster,
        isGone: false,
      };
      tx.rows.push(row);
      this.rows.push(row);
      this.#log.push({ kind: "write", xid: row.xid, id: row.id });
      if (this.isAsleep) tx.isNotifying = true;
      done();
    };
    if (lane === undefined) write();
    else this.#lock(lane, tx, write);
  }

  /** Writes a message that is due later: without a wait for its key. */
  enqueueLater(tx: Transaction, destination: string, key: string | undefined, dueAt: number): void {
    if (tx.state !== "running") return;
    this.assignXid(tx);
    const row: LaterRow = {
      id: this.#nextId++,
      destination,
      lane: key === undefined ? undefined : `${destination} ${key}`,
      messageId: this.#world.newMessageId(),
      tx,
      enqueuedAt: this.#world.schedule.now,
      dueAt,
      xid: tx.xid!,
      isGone: false,
    };
    tx.laterRows.push(row);
    this.later.push(row);
    this.#log.push({ kind: "write", xid: row.xid, id: row.id });
    if (this.isAsleep) tx.isNotifying = true;
  }

  /**
   * Writes the messages for streams into the outbox again that it still has, and were enqueued since then.
   *
   * @returns those that were dead letters, too: all that is not lost
   */
  replay(since: number): ReadonlySet<string> {
    const dead = new Set(this.turns.flatMap((turn) => turn.dead.map(({ message }) => message.messageId)));
    const known = new Set(dead);
    const tx = this.begin();
    this.assignXid(tx);
    const kept = this.rows.filter((row) => !row.isGone && row.tx.state === "committed");
    for (const row of kept.sort(byId)) {
      if (row.enqueuedAt < since || dead.has(row.messageId)) continue;
      if (kept.some(({ id, enqueuedAt }) => id === row.copyOf && enqueuedAt >= since)) continue;
      this.#world.counts.add("transition: message written again");
      known.add(row.messageId);
      this.#put(tx, { ...row, copyOf: row.copyOf ?? row.id });
    }
    if (this.isAsleep) tx.isNotifying = true;
    this.commit(tx);
    return known;
  }

  /** A row of what is known, in a transaction of the relay or an operator. */
  #put(
    tx: Transaction,
    known: Omit<Row, "id" | "bytes" | "tx" | "enqueuedAt" | "slot" | "xid" | "cluster" | "isGone">,
  ): void {
    const row: Row = {
      ...known,
      id: this.#nextId++,
      bytes: 100,
      tx,
      enqueuedAt: this.#world.schedule.now,
      slot: this.slot,
      xid: tx.xid!,
      cluster: this.cluster,
      isGone: false,
    };
    tx.rows.push(row);
    this.rows.push(row);
    this.#log.push({ kind: "write", xid: row.xid, id: row.id });
  }

  #lock(lane: string, tx: Transaction, go: () => void): void {
    const lock = this.#locks.get(lane);
    if (lock === undefined) {
      this.#locks.set(lane, { holder: tx, waiting: [] });
      tx.locks.set(lane, tx.rows.length);
      go();
    } else if (lock.holder === tx) go();
    else {
      this.#world.counts.add("transition: waited for a key");
      lock.waiting.push({ tx, go });
    }
  }

  #unlock(lane: string, tx: Transaction): void {
    const lock = this.#locks.get(lane);
    if (lock?.holder !== tx) return;
    tx.locks.delete(lane);
    this.#locks.delete(lane);
    const [next, ...others] = lock.waiting.filter((waiter) => waiter.tx.state === "running");
    if (next === undefined) return;
    this.#locks.set(lane, { holder: next.tx, waiting: others });
    next.tx.locks.set(lane, next.tx.rows.length);
    next.go();
  }

  /** Takes back what was enqueued behind a savepoint, with the locks that were taken there. */
  rollBackTo(tx: Transaction, rows: number, laterRows: number): void {
    if (tx.state !== "running") return;
    for (const row of tx.laterRows.splice(laterRows)) row.isGone = true;
    for (const row of tx.rows.splice(rows)) row.isGone = true;
    for (const [lane, takenAt] of tx.locks) if (takenAt >= rows) this.#unlock(lane, tx);
  }

  commit(tx: Transaction): void {
    if (!this.available) this.abort(tx);
    if (tx.state !== "running") return;
    tx.state = "committed";
    tx.committedAt = this.#world.schedule.now;
    tx.commitOrder = this.#commits++;
    this.#running.delete(tx);
    this.#log.push({ kind: "commit", tx });
    if (!tx.isAsynchronous) this.#durable = this.#log.length;
    for (const lane of [...tx.locks.keys()]) this.#unlock(lane, tx);
    if (tx.isNotifying) this.#world.notify();
  }

  abort(tx: Transaction): void {
    if (tx.state !== "running") return;
    tx.state = "aborted";
    this.#running.delete(tx);
    for (const lane of [...tx.locks.keys()]) this.#unlock(lane, tx);
  }

  // ---- what the relay asks ----

  /** Takes over: from now on no turn of another relay is saved. */
  take(owner: object): { readonly turn: bigint; readonly position: OutboxPosition } {
    const latest = this.turns.at(-1);
    let position = latest?.position ?? { from: "3:3:", to: undefined, after: 0n, skipped: [] };
    let adopted: readonly AdoptedRow[] = [];
    if (latest?.cluster !== this.cluster && !this.#faults.keepsForeignXids) {
      const xid = this.#nextXid++;
      const foreign = this.rows.filter(({ cluster }) => cluster !== this.cluster);
      adopted = foreign.map((row) => ({ row, xid: row.xid, cluster: row.cluster }));
      for (const row of foreign) {
        row.xid = row.cluster === latest?.cluster && isDone(row, position) ? 2 : xid;
        row.cluster = this.cluster;
      }
      position = { from: "3:3:", to: undefined, after: 0n, skipped: [] };
      this.#world.counts.add("transition: messages of another cluster adopted");
    }
    const turn = (latest?.turn ?? 0n) + 1n;
    this.#save({ turn, owner, position, cluster: this.cluster, dead: [] }, adopted);
    return { turn, position };
  }

  turn(owner: object, step: TurnStep<Row>): TurnAnswer {
    const latest = this.turns.at(-1);
    if (!this.#faults.noFence) {
      if (latest?.owner !== owner) return { kind: "deposed" };
      if (latest.turn === step.turn && !this.#faults.savesTwice) {
        this.#world.counts.add("transition: turn was saved before");
        return { kind: "done", isSaved: true };
      }
      if (latest.turn !== step.turn - 1n && !this.#faults.savesTwice) return { kind: "deposed" };
    }
    const brought = step.dueFrom === undefined ? undefined : this.#bring(step.dueFrom);
    if (step.asleep !== undefined) this.isAsleep = step.asleep;
    let next = brought?.next;
    let found: { to: Snapshot; messages: readonly Row[]; hasMore: boolean } | undefined;
    if (step.read !== undefined) {
      const { from, to = this.#snapshot(), after, maxMessages } = step.read;
      const messages = this.#read(from, to, after);
      found = { to, messages: messages.slice(0, maxMessages), hasMore: messages.length > maxMessages };
      if (step.read.to === undefined) next = earlier(next, this.#leastDue(step.read.laterFrom));
      if (found.hasMore) this.#world.counts.add("transition: set of several pages");
    }
    const isSaved = step.mustSave || (found !== undefined && found.messages.length > 0);
    const { turn, position } = step;
    // What was written again is one dead letter with the first one.
    const known = this.turns.flatMap(({ dead }) => dead.map(({ message }) => message));
    const dead = step.dead.filter(({ message }) => {
      const isKnown = known.some(
        (other) => other.messageId === message.messageId && (other.copyOf ?? message.copyOf) !== undefined,
      );
      known.push(message);
      return !isKnown;
    });
    if (isSaved) this.#save({ turn, owner, position, cluster: this.cluster, dead });
    const inMs = next === undefined ? 0 : Math.max(0, next - this.#world.schedule.now);
    const due = { brought: brought?.count ?? 0, next: next === undefined ? undefined : { from: next, inMs } };
    return found === undefined ? { kind: "done", isSaved, due } : { kind: "done", isSaved, due, found };
  }

  get #laterCommitted(): LaterRow[] {
    return this.later.filter((row) => !row.isGone && row.tx.state === "committed");
  }

  /** Brings in what is due, in the transaction of the turn. The snapshot of its look may see that, or not. */
  #bring(from: number): { count: number; next: number | undefined } {
    const { now } = this.#world.schedule;
    const { random, counts } = this.#world;
    const isDue = ({ dueAt }: LaterRow): boolean =>
      dueAt >= from && (this.#faults.bringsEarly === true || dueAt <= now);
    const page = this.#laterCommitted.filter(isDue).sort((one, other) => one.dueAt - other.dueAt || byId(one, other));
    const due = page.slice(0, 4);
    if (due.length > 0) {
      counts.add("transition: due messages brought in");
      const tx = this.begin();
      this.assignXid(tx);
      if (random.chance(0.5)) this.#nextXid += 1;
      for (const later of due) {
        const { destination, lane, messageId } = later;
        if (this.#faults.bringsTwice !== true) later.isGone = true;
        this.#put(tx, { destination, lane, messageId, later, copyOf: undefined });
      }
      tx.brought.push(...due);
      this.commit(tx);
    }
    const left = this.#laterCommitted.filter(({ dueAt }) => dueAt >= from).map(({ dueAt }) => dueAt);
    return { count: due.length, next: left.length === 0 ? undefined : Math.min(...left) };
  }

  /** When the first message is due that the snapshot does not see. */
  #leastDue(from: Snapshot | undefined): number | undefined {
    const old = from === undefined ? undefined : parse(from);
    const isNew = ({ xid }: LaterRow): boolean =>
      old === undefined || xid >= old.xmax || (this.#faults.forgetsLateCommits !== true && old.xip.includes(xid));
    const times = this.#laterCommitted.filter(isNew).map(({ dueAt }) => dueAt);
    return times.length === 0 ? undefined : Math.min(...times);
  }

  #read(from: Snapshot, to: Snapshot, after: bigint): readonly Row[] {
    const old = parse(from);
    const now = parse(to);
    const isNew = ({ xid }: Row): boolean => xid >= old.xmax || old.xip.includes(xid);
    const rows = this.rows.filter((row) => !row.isGone && row.tx.state === "committed" && sees(now, row.xid));
    if (this.#faults.readsById) {
      const last = this.#world.lastIdRead(to, after);
      return rows.filter(({ id }) => id > last).sort(byId);
    }
    const set = rows.filter((row) => isNew(row) && row.id > after);
    return set.sort(this.#faults.ordersByXid ? (one, other) => one.xid - other.xid || byId(one, other) : byId);
  }

  #save(saved: SavedTurn, adopted: readonly AdoptedRow[] = []): void {
    this.turns.push(saved);
    this.#log.push({ kind: "save", xid: this.#nextXid++, adopted });
    if (!this.#faults.readsBeforeFlush) this.#durable = this.#log.length;
  }

  /** Goes on to the next slot, when everything that is in it is done. For the relay that works alone. */
  rotate(): void {
    if (this.turns.at(-1)?.cluster !== this.cluster) return;
    const next = (this.slot + 1) % 3;
    const inSlot = this.rows.filter(({ slot, isGone }) => slot === next && !isGone);
    const { position } = this.turns.at(-1) ?? {};
    if (!this.#faults.truncatesBlindly) {
      if (inSlot.some(({ tx }) => tx.state === "running")) {
        this.#world.counts.add("transition: slot still written");
        return;
      }
      const committed = inSlot.filter(({ tx }) => tx.state === "committed");
      if (position === undefined || committed.some((row) => !isDone(row, position))) {
        this.#world.counts.add("transition: slot not done");
        return;
      }
    }
    for (const row of inSlot) row.isGone = true;
    this.rows = this.rows.filter(({ isGone }) => !isGone);
    this.#log.push({ kind: "truncate", xid: this.#nextXid++, rows: inSlot, slot: this.slot });
    this.#durable = this.#log.length;
    this.slot = next;
    this.#world.counts.add("transition: slot truncated");
  }

  // ---- faults ----

  /** The server ends at once: what is not on its disk never was. */
  crash(): void {
    this.#cut(this.#durable);
  }

  /** A standby that is behind goes on. */
  failover(behind: number): void {
    this.#cut(Math.max(0, this.#log.length - behind));
  }

  /** A dump, restored elsewhere: its xids are those of another cluster. */
  restore(nextXid: number): void {
    for (const tx of [...this.#running]) this.#end(tx);
    this.#locks.clear();
    this.rows = this.rows.filter(({ tx, isGone }) => tx.state === "committed" && !isGone);
    this.later = this.#laterCommitted;
    this.#nextXid = nextXid;
    this.cluster += 1;
    this.incarnation += 1;
    this.#log = [];
    this.#durable = 0;
    this.#restoredId = this.#nextId - 1n;
  }

  #cut(length: number): void {
    const lost = this.#log.slice(length);
    const kept = this.#log.slice(0, length);
    for (const tx of [...this.#running]) this.#end(tx);
    for (const [index, change] of [...lost.entries()].toReversed()) {
      if (change.kind === "save") {
        this.#world.forgotten(this.turns.pop()!.dead);
        for (const { row, xid, cluster } of change.adopted) Object.assign(row, { xid, cluster });
      } else if (change.kind === "truncate") {
        for (const row of change.rows) row.isGone = !row.tx.rows.includes(row);
        this.rows.push(...change.rows);
        this.slot = change.slot;
      } else if (change.kind === "commit") {
        change.tx.state = "aborted";
        for (const row of change.tx.brought) {
          this.#world.counts.add("transition: message brought in was taken back");
          row.isGone = false;
        }
        this.#world.lost(change.tx, length + index < this.#durable);
      }
    }
    this.#locks.clear();
    this.rows = this.rows.filter(({ tx, isGone }) => tx.state === "committed" && !isGone);
    this.later = this.later
      .filter(({ tx, isGone }) => tx.state === "committed" || !isGone)
      .filter(({ tx }) => tx.state === "committed");
    const xids = kept.flatMap((change) => (change.kind === "commit" ? [] : [change.xid]));
    if (kept.length > 0)
      this.#nextXid = Math.max(99, ...xids, ...this.turns.map(({ position }) => parse(position.from).xmax - 1)) + 1;
    // What a sequence has given is in the log before the row that has it. So an id that is in the log is never given again, not
    // even if its slot was truncated: a saved position may still name it as skipped.
    const ids = kept.flatMap((change) => (change.kind === "write" ? [change.id] : []));
    this.#nextId = ids.reduce((most, id) => (id > most ? id : most), this.#restoredId) + 1n;
    this.#log = kept;
    this.#durable = kept.length;
    this.incarnation += 1;
  }

  #end(tx: Transaction): void {
    tx.state = "aborted";
    this.#running.delete(tx);
  }

  #snapshot(): Snapshot {
    const xip = [...this.#running].flatMap(({ xid }) => xid ?? []).sort((one, other) => one - other);
    return `${xip[0] ?? this.#nextXid}:${this.#nextXid}:${xip.join(",")}`;
  }
}

function earlier(one: number | undefined, other: number | undefined): number | undefined {
  return one === undefined || other === undefined ? (one ?? other) : Math.min(one, other);
}

function byId(one: { readonly id: bigint }, other: { readonly id: bigint }): number {
  return Number(one.id - other.id);
}

function parse(snapshot: Snapshot): ReadSnapshot {
  const [, xmax, xip] = snapshot.split(":");
  if (xip === undefined) throw new Violation(`no snapshot: ${snapshot}`);
  return { xmax: Number(xmax), xip: xip === "" ? [] : xip.split(",").map(Number) };
}

/** By the numbers alone, as `pg_visible_in_snapshot`. */
function sees({ xmax, xip }: ReadSnapshot, xid: number): boolean {
  return xid < xmax && !xip.includes(xid);
}

function isDone(row: Row, { from, to, after, skipped }: OutboxPosition): boolean {
  if (skipped.includes(row.id)) return true;
  return sees(parse(from), row.xid) || (to !== undefined && sees(parse(to), row.xid) && row.id <= after);
}
