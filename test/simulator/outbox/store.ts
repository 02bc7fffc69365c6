/**
 * Postgres as the outbox sees it: transactions with xids, snapshots, key locks, three slots, saved positions, the flag that
 * says whether the relay sleeps; and what a crash, a failover and a restored dump make of them.
 */
import type { DoubtfulMessage } from "../../../src/outbox/doubt.js";
import type {
  DeadOutboxMessage,
  OutboxMessage,
  OutboxPosition,
  PageFound,
  PageRead,
  PollFound,
  PollRead,
  SeriesName,
  SeriesPosition,
  Snapshot,
  TurnStep,
} from "../../../src/outbox/relay.js";
import { Violation } from "../records.js";
import type { OutboxFaults } from "./mutants.js";
import type { OutboxWorld } from "./world.js";

/** Who relays a message: the relay to NATS, or the one for peers. Each has positions of its own. */
export type Sink = "nats" | "peer";

/** Destination of a message. */
export interface Target {
  readonly sink: Sink;
  readonly destination: string;
  readonly route: string;
  readonly key: string | undefined;
}

/** A message and what became of it. */
export interface Row extends OutboxMessage, DoubtfulMessage {
  readonly sink: Sink;
  readonly messageId: string;
  readonly tx: Transaction;
  readonly enqueuedAt: number;
  readonly slot: number;
  /** The column: the transaction that wrote it, unless it came from another cluster. */
  xid: number;
  cluster: number;
  /** A savepoint was rolled back, or the slot truncated. */
  isGone: boolean;
  /** Count of set-backs at which the message was found to be done: see {@link OutboxWorld.isDone}. */
  doneAsOf?: number;
  /** Mutants: what this is a copy of. */
  readonly original?: Row;
  /** Row of a message that was due later. */
  readonly later?: LaterRow;
}

/** A message that is due later. */
export interface LaterRow {
  readonly id: bigint;
  readonly sink: Sink;
  readonly role: string;
  readonly route: string;
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
  readonly role: string;
  xid: number | undefined;
  state: "running" | "committed" | "aborted" = "running";
  readonly rows: Row[] = [];
  readonly laterRows: LaterRow[] = [];
  /** Rows that the turn has brought in. */
  readonly brought: LaterRow[] = [];
  /** The locks on keys, with how many rows there were when each was taken. */
  readonly locks = new Map<string, number>();
  isNotifying = false;
  committedAt = 0;
  /** Number of turns of the relay to NATS that had been answered at the commit. */
  committedInTurn = 0;
  commitOrder = 0;
  /** A commit that does not wait for the disk. */
  readonly isAsynchronous: boolean;
  /** Slot in the snapshot with which the transaction began to read. */
  readonly slotSeen: number | undefined;

  constructor(role: string, isAsynchronous: boolean, slotSeen: number | undefined) {
    this.role = role;
    this.isAsynchronous = isAsynchronous;
    this.slotSeen = slotSeen;
  }
}

interface SavedTurn {
  readonly sink: Sink;
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

/** Entry of the log of changes, in order: a crash and a failover cut the log. */
type Change =
  | { readonly kind: "write"; readonly xid: number; readonly id: bigint }
  | { readonly kind: "commit"; readonly tx: Transaction }
  | {
      readonly kind: "save";
      readonly xid: number;
      readonly adopted: readonly AdoptedRow[];
      readonly handedOver: readonly Row[];
    }
  | { readonly kind: "truncate"; readonly xid: number; readonly rows: readonly Row[]; readonly slot: number };

export type TurnAnswer =
  | {
      readonly kind: "done";
      readonly isSaved: boolean;
      readonly found?: PollFound<Row> | PageFound<Row>;
      readonly due?: { moved: number; next: { from: number; inMs: number } | undefined };
    }
  | { readonly kind: "deposed" };

/** Number of messages that the relay for peers hands over at once. */
const peerPage = 8;

const start: OutboxPosition = { from: "3:3:", to: undefined, after: 0n, series: [], skipped: [] };

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
  /** Number of dead letters by message. */
  readonly deadLetters = new Map<string, number>();
  /** Number of turns of the relay to NATS that have been answered. */
  turnCount = 0;
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
  /** Grows when something is taken back: what was done may be open again. */
  #takenBack = 0;
  readonly #running = new Set<Transaction>();
  #log: Change[] = [];
  #durable = 0;
  readonly #locks = new Map<string, { holder: Transaction; waiting: { tx: Transaction; go: () => void }[] }>();

  constructor(world: OutboxWorld, faults: OutboxFaults) {
    this.#world = world;
    this.#faults = faults;
  }

  begin(role = "operator"): Transaction {
    const { random } = this.#world;
    const tx = new Transaction(role, random.chance(0.2), random.chance(0.2) ? this.slot : undefined);
    this.#running.add(tx);
    return tx;
  }

  /** The transaction writes something of its own. */
  assignXid(tx: Transaction): void {
    tx.xid ??= this.#nextXid++;
  }

  /** Waits for the key, then writes the message. */
  enqueue(tx: Transaction, target: Target, done: () => void): void {
    const { sink, destination, route } = target;
    const lane = laneOf(tx, target);
    const write = (): void => {
      if (tx.state !== "running") return;
      this.assignXid(tx);
      const row: Row = {
        id: this.#nextId++,
        sink,
        role: tx.role,
        route,
        lane,
        destination,
        bytes: 100,
        copyOf: undefined,
        refusal: refusalOf(destination),
        messageId: this.#world.newMessageId(),
        tx,
        enqueuedAt: this.#world.schedule.now,
        enqueuedBy: this.#world.schedule.now,
        mayBeThereSince: this.#world.schedule.now,
        isRepeated: false,
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
  enqueueLater(tx: Transaction, target: Target, dueAt: number): void {
    if (tx.state !== "running") return;
    this.assignXid(tx);
    const { sink, destination, route } = target;
    const row: LaterRow = {
      id: this.#nextId++,
      sink,
      role: tx.role,
      route,
      destination,
      lane: laneOf(tx, target),
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
    const kept = this.rows.filter((row) => row.sink === "nats" && !row.isGone && row.tx.state === "committed");
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
    known: Omit<
      Row,
      "id" | "bytes" | "tx" | "enqueuedAt" | "enqueuedBy" | "isRepeated" | "slot" | "xid" | "cluster" | "isGone"
    >,
  ): void {
    const row: Row = {
      ...known,
      enqueuedBy: this.#world.schedule.now,
      isRepeated: true,
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
    tx.committedInTurn = this.turnCount;
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

  /** The last turn of a relay. */
  latest(sink: Sink): SavedTurn | undefined {
    if (this.#faults.sharesPosition !== true) return this.turns.findLast((turn) => turn.sink === sink);
    const own = this.turns.findLast((turn) => turn.sink === sink);
    return own && { ...own, position: this.turns.at(-1)!.position };
  }

  /** Takes over: from now on no turn of another relay is saved. */
  take(sink: Sink, owner: object): { readonly turn: bigint; readonly position: OutboxPosition } {
    const latest = this.latest(sink);
    let position = latest?.position ?? start;
    let adopted: readonly AdoptedRow[] = [];
    if (latest?.cluster !== this.cluster && !this.#faults.keepsForeignXids) {
      const xid = this.#nextXid++;
      const foreign = this.rows.filter((row) => row.sink === sink && row.cluster !== this.cluster);
      adopted = foreign.map((row) => ({ row, xid: row.xid, cluster: row.cluster }));
      for (const row of foreign) {
        row.xid = row.cluster === latest?.cluster && isDone(row, position) ? 2 : xid;
        row.cluster = this.cluster;
      }
      position = start;
      this.#world.counts.add("transition: messages of another cluster adopted");
    }
    const turn = (latest?.turn ?? 0n) + 1n;
    this.#save({ sink, turn, owner, position, cluster: this.cluster, dead: [] }, { adopted });
    return { turn, position };
  }

  turn(owner: object, step: TurnStep<Row>): TurnAnswer {
    const latest = this.latest("nats");
    this.turnCount += 1;
    if (!this.#faults.noFence) {
      if (latest?.owner !== owner) return { kind: "deposed" };
      if (latest.turn === step.turn && !this.#faults.savesTwice) {
        this.#world.counts.add("transition: turn was saved before");
        return { kind: "done", isSaved: true };
      }
      if (latest.turn !== step.turn - 1n && !this.#faults.savesTwice) return { kind: "deposed" };
    }
    const brought = step.dueFrom === undefined ? undefined : this.#bring("nats", step.dueFrom);
    if (step.asleep !== undefined) this.isAsleep = step.asleep;
    let next = brought?.next;
    let found: PollFound<Row> | PageFound<Row> | undefined;
    if (step.read?.kind === "poll") {
      found = this.#look("nats", step.read);
      next = earlier(next, this.#leastDue("nats", step.read.laterFrom));
    } else if (step.read?.kind === "page") found = this.#page("nats", step.read);
    const isSaved = step.mustSave || (found !== undefined && found.messages.length > 0);
    const { turn, position } = step;
    // What was written again is one dead letter with the first one.
    const known = step.dead.length === 0 ? [] : this.turns.flatMap((each) => each.dead.map(({ message }) => message));
    const dead = step.dead.filter(({ message }) => {
      const isKnown = known.some(
        (other) => other.messageId === message.messageId && (other.copyOf ?? message.copyOf) !== undefined,
      );
      known.push(message);
      return !isKnown;
    });
    if (isSaved) this.#save({ sink: "nats", turn, owner, position, cluster: this.cluster, dead });
    const inMs = next === undefined ? 0 : Math.max(0, next - this.#world.schedule.now);
    const due = { moved: brought?.count ?? 0, next: next === undefined ? undefined : { from: next, inMs } };
    return found === undefined ? { kind: "done", isSaved, due } : { kind: "done", isSaved, due, found };
  }

  /**
   * A turn of the relay for peers: a look, and a page of the first series that has more to read, are stored with the position, in
   * one transaction.
   *
   * @returns whether this relay works
   */
  handOver(owner: object): boolean {
    const latest = this.latest("peer");
    if (latest?.owner !== owner) return false;
    this.#bring("peer", 0);
    const { position } = latest;
    const [lagging] = position.series.filter(({ to }) => to !== undefined);
    const look = this.#look("peer", {
      kind: "poll",
      from: position.from,
      laterFrom: undefined,
      series: position.series.map(({ role, route, from, to }) => ({ role, route, from, joins: to === undefined })),
      maxMessages: peerPage,
      maxBytes: 100_000,
    });
    const handedOver = [...look.messages];
    const rest = look.rest.map(({ role, route, after }): SeriesPosition => {
      const { from } = position.series.find((each) => isNamed(each, { role, route })) ?? position;
      return { role, route, from, to: look.to, after };
    });
    const series = [...position.series.filter(({ to }) => to !== undefined), ...rest];
    if (lagging !== undefined) {
      const { role, route, from, after } = lagging;
      const to = lagging.to!;
      const limits = { maxMessages: peerPage, maxBytes: 100_000 };
      const page = this.#page("peer", { kind: "page", role, route, excluded: [], from, to, after, ...limits });
      handedOver.push(...page.messages);
      series.splice(series.indexOf(lagging), 1);
      const caughtUp = { ...lagging, from: to, to: undefined, after: 0n };
      series.push(page.hasMore ? { ...lagging, after: page.messages.at(-1)!.id } : caughtUp);
      this.#world.counts.add("transition: page for peers");
    }
    if (handedOver.length === 0 && position.series.length === 0 && series.length === 0) return true;
    const moved: OutboxPosition = { from: look.to, to: undefined, after: 0n, series, skipped: [] };
    const turn = latest.turn + 1n;
    this.#save({ sink: "peer", turn, owner, position: moved, cluster: this.cluster, dead: [] }, { handedOver });
    return true;
  }

  get #laterCommitted(): LaterRow[] {
    return this.later.filter((row) => !row.isGone && row.tx.state === "committed");
  }

  /** Brings in what is due, in the transaction of the turn. The snapshot of its look may see that, or not. */
  #bring(sink: Sink, from: number): { count: number; next: number | undefined } {
    const { now } = this.#world.schedule;
    const { random, counts } = this.#world;
    const isDue = ({ dueAt, sink: of }: LaterRow): boolean =>
      of === sink && dueAt >= from && (this.#faults.bringsEarly === true || dueAt <= now);
    const page = this.#laterCommitted.filter(isDue).sort((one, other) => one.dueAt - other.dueAt || byId(one, other));
    const due = page.slice(0, 4);
    if (due.length > 0) {
      counts.add("transition: due messages brought in");
      const tx = this.begin("relay");
      this.assignXid(tx);
      if (random.chance(0.5)) this.#nextXid += 1;
      for (const later of due) {
        const { role, route, destination, lane, messageId } = later;
        if (this.#faults.bringsTwice !== true) later.isGone = true;
        const known = { sink, role, route, destination, lane, messageId };
        const refusal = refusalOf(destination);
        this.#put(tx, { ...known, later, mayBeThereSince: later.dueAt, copyOf: undefined, refusal });
      }
      tx.brought.push(...due);
      this.commit(tx);
    }
    const left = this.#laterCommitted
      .filter(({ dueAt, sink: of }) => of === sink && dueAt >= from)
      .map(({ dueAt }) => dueAt);
    return { count: due.length, next: left.length === 0 ? undefined : Math.min(...left) };
  }

  /** When the first message is due that the snapshot does not see. */
  #leastDue(sink: Sink, from: Snapshot | undefined): number | undefined {
    const old = from === undefined ? undefined : parse(from);
    const isNew = ({ xid }: LaterRow): boolean =>
      old === undefined || xid >= old.xmax || (this.#faults.forgetsLateCommits !== true && old.xip.includes(xid));
    const times = this.#laterCommitted.filter((row) => row.sink === sink && isNew(row)).map(({ dueAt }) => dueAt);
    return times.length === 0 ? undefined : Math.min(...times);
  }

  #look(sink: Sink, { from, series, maxMessages }: PollRead): PollFound<Row> {
    const to = this.#snapshot();
    const found: { row: Row; name: SeriesName }[] = [];
    for (const row of this.#seen(sink, to)) {
      const own = this.#seriesOf(row, series);
      if (own !== undefined && (!own.joins || !this.#isNew(row, own.from))) continue;
      if (own === undefined && !this.#isNew(row, from)) continue;
      found.push({ row, name: own ?? { role: row.role, route: undefined } });
    }
    found.sort((one, other) => this.#compare(one.row, other.row));
    const later = rolesWithMore(found, maxMessages);
    const first = found.filter(({ row }) => !later.has(row.role)).slice(0, maxMessages);
    const last = first.at(-1)!;
    const rest: (SeriesName & { after: bigint })[] = [];
    for (const one of found) {
      if (first.includes(one) || rest.some((each) => isNamed(each, one.name))) continue;
      rest.push({
        role: one.name.role,
        route: one.name.route,
        after: later.has(one.row.role) ? one.row.id - 1n : last.row.id,
      });
    }
    if (rest.length > 0) this.#world.counts.add("transition: look with a rest");
    if (later.size > 0) this.#world.counts.add("transition: look without a role that has more");
    return { kind: "poll", to, messages: first.map(({ row }) => row), rest };
  }

  #page(sink: Sink, { role, route, excluded, from, to, after, maxMessages }: PageRead): PageFound<Row> {
    const isOf = (row: Row): boolean =>
      (role === undefined || row.role === role) &&
      (route === undefined || row.route === route || this.#faults.ignoresRoutes === true) &&
      this.#seriesOf(row, excluded) === undefined;
    const rows = this.#seen(sink, to).filter((row) => isOf(row) && row.id > after && this.#isNew(row, from));
    rows.sort((one, other) => this.#compare(one, other));
    this.#world.counts.add("transition: set of several pages");
    if (route !== undefined) this.#world.counts.add("transition: page of a route");
    return { kind: "page", messages: rows.slice(0, maxMessages), hasMore: rows.length >= maxMessages };
  }

  #seriesOf<S extends SeriesName>({ role, route }: Row, series: readonly S[]): S | undefined {
    if (this.#faults.ignoresRoutes === true) return series.find((each) => each.role === role);
    return (
      series.find((each) => each.role === role && each.route === route) ??
      series.find((each) => each.role === role && each.route === undefined)
    );
  }

  #seen(sink: Sink, to: Snapshot): Row[] {
    const now = parse(to);
    return this.rows.filter((row) => this.#isSeen(row, sink, now));
  }

  #isSeen(row: Row, sink: Sink, now: ReadSnapshot): boolean {
    return row.sink === sink && !row.isGone && row.tx.state === "committed" && sees(now, row.xid);
  }

  #isNew(row: Row, from: Snapshot): boolean {
    if (this.#faults.readsById === true) return row.id > this.#world.lastIdRead(row.sink);
    return !sees(parse(from), row.xid);
  }

  #compare(one: Row, other: Row): number {
    return (this.#faults.ordersByXid === true ? one.xid - other.xid : 0) || byId(one, other);
  }

  #save(
    saved: SavedTurn,
    { adopted = [], handedOver = [] }: { adopted?: readonly AdoptedRow[]; handedOver?: readonly Row[] } = {},
  ): void {
    const before = this.turns.at(-1)?.position;
    this.turns.push(saved);
    for (const { message } of saved.dead) this.#countDead(message, 1);
    this.#log.push({ kind: "save", xid: this.#nextXid++, adopted, handedOver });
    if (!this.#faults.readsBeforeFlush) this.#durable = this.#log.length;
    this.#world.handedOver(handedOver);
    const { sink, position } = saved;
    if (position === before || this.#faults.keepsForeignXids === true || saved.cluster !== this.cluster) return;
    const now = parse(this.#snapshot());
    for (const row of this.rows) {
      if (row.doneAsOf === this.#takenBack || !this.#isSeen(row, sink, now)) continue;
      if (this.#world.isDone(row)) row.doneAsOf = this.#takenBack;
      else if (row.cluster === this.cluster && isDone(row, position)) {
        throw new Violation(`the position of the relay to ${sink} has passed ${row.messageId}, which is not done`);
      }
    }
  }

  #countDead({ messageId }: Row, by: number): void {
    const times = (this.deadLetters.get(messageId) ?? 0) + by;
    if (times === 0) this.deadLetters.delete(messageId);
    else this.deadLetters.set(messageId, times);
  }

  /** Goes on to the next slot, when everything that is in it is done. For the relay that works alone. */
  rotate(): void {
    const positions = (["nats", "peer"] as const).map((sink) => this.latest(sink));
    if (positions.some((turn) => turn?.cluster !== this.cluster)) return;
    const next = (this.slot + 1) % 3;
    const inSlot = this.rows.filter(({ slot, isGone }) => slot === next && !isGone);
    if (!this.#faults.truncatesBlindly) {
      if (inSlot.some(({ tx }) => tx.state === "running")) {
        this.#world.counts.add("transition: slot still written");
        return;
      }
      const committed = inSlot.filter(({ tx }) => tx.state === "committed");
      if (committed.some((row) => !isDone(row, this.latest(row.sink)!.position))) {
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
    this.#takenBack += 1;
    const lost = this.#log.slice(length);
    const kept = this.#log.slice(0, length);
    for (const tx of [...this.#running]) this.#end(tx);
    for (const [index, change] of [...lost.entries()].toReversed()) {
      if (change.kind === "save") {
        const { dead } = this.turns.pop()!;
        for (const { message } of dead) this.#countDead(message, -1);
        this.#world.forgotten(dead);
        this.#world.takenBack(change.handedOver);
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
    const xip: number[] = [];
    for (const { xid } of this.#running) if (xid !== undefined) xip.push(xid);
    xip.sort((one, other) => one - other);
    return `${xip[0] ?? this.#nextXid}:${this.#nextXid}:${xip.join(",")}`;
  }
}

function earlier(one: number | undefined, other: number | undefined): number | undefined {
  return one === undefined || other === undefined ? (one ?? other) : Math.min(one, other);
}

function byId(one: { readonly id: bigint }, other: { readonly id: bigint }): number {
  return Number(one.id - other.id);
}

const parsed = new Map<Snapshot, ReadSnapshot>();

function parse(snapshot: Snapshot): ReadSnapshot {
  const known = parsed.get(snapshot);
  if (known !== undefined) return known;
  if (parsed.size > 1_000) parsed.clear();
  const read = parseNew(snapshot);
  parsed.set(snapshot, read);
  return read;
}

function parseNew(snapshot: Snapshot): ReadSnapshot {
  const [, xmax, xip] = snapshot.split(":");
  if (xip === undefined) throw new Violation(`no snapshot: ${snapshot}`);
  return { xmax: Number(xmax), xip: xip === "" ? [] : xip.split(",").map(Number) };
}

/** By the numbers alone, as `pg_visible_in_snapshot`. */
function sees({ xmax, xip }: ReadSnapshot, xid: number): boolean {
  return xid < xmax && !xip.includes(xid);
}

/** A message to here is too large. */
function refusalOf(destination: string): Row["refusal"] {
  return destination === "large" ? { code: "payload_too_large", message: "too large" } : undefined;
}

function isNamed(one: SeriesName, other: SeriesName): boolean {
  return one.role === other.role && one.route === other.route;
}

function laneOf({ role }: Transaction, { sink, route, destination, key }: Target): string | undefined {
  return key === undefined ? undefined : [sink, role, route, destination, key].join(" ");
}

/** By the position of the most specific series that the message belongs to. */
function isDone(row: Row, position: OutboxPosition): boolean {
  const { skipped, series } = position;
  if (skipped.includes(row.id)) return true;
  const { from, to, after } =
    series.find((each) => isNamed(each, row)) ??
    series.find((each) => each.role === row.role && each.route === undefined) ??
    position;
  return sees(parse(from), row.xid) || (to !== undefined && sees(parse(to), row.xid) && row.id <= after);
}

/** Roles of which a look reads nothing, as they have more messages than fit; none, if no role fits. */
function rolesWithMore(found: readonly { readonly row: Row }[], maxMessages: number): ReadonlySet<string> {
  const counts = new Map<string, number>();
  for (const { row } of found) counts.set(row.role, (counts.get(row.role) ?? 0) + 1);
  const fewestFirst = [...counts].sort(([one, ofOne], [other, ofOther]) => ofOne - ofOther || (one < other ? -1 : 1));
  const later = new Set<string>();
  let sum = 0;
  for (const [role, count] of fewestFirst) {
    sum += count;
    if (sum > maxMessages) later.add(role);
  }
  return later.size === counts.size ? new Set() : later;
}
