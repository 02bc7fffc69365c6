/**
 * Postgres as the outbox sees it: messages in three slots, messages that are due later, locks on keys, saved positions, and the
 * flag that says whether the relay sleeps.
 */
import type { DoubtfulMessage } from "../../../src/nats/outbox/doubt.js";
import { type DueFound, type DueTimes, earliest } from "../../../src/nats/outbox/poll-pace.js";
import type {
  DeadOutboxMessage,
  OutboxMessage,
  OutboxPosition,
  PageFound,
  PageRead,
  PollFound,
  PollRead,
  SeriesName,
  Snapshot,
  TurnStep,
} from "../../../src/nats/outbox/relay.js";
import { Postgres, parseSnapshot, sees, Table, Transaction } from "../postgres.js";
import { Violation } from "../records.js";
import type { OutboxFaults } from "./mutants.js";
import type { OutboxWorld } from "./world.js";

/** Destination of a message. */
export interface Target {
  readonly destination: string;
  readonly route: string;
  readonly key: string | undefined;
}

/** A message and what became of it. */
export interface Row extends OutboxMessage, DoubtfulMessage {
  readonly messageId: string;
  readonly tx: OutboxTransaction;
  readonly enqueuedAt: number;
  readonly slot: number;
  /** The column: the transaction that wrote it, unless it came from another cluster. */
  xid: number;
  cluster: number;
  /** A mutant has truncated the slot before the commit. */
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
  readonly role: string;
  readonly route: string;
  readonly destination: string;
  readonly lane: string | undefined;
  readonly messageId: string;
  readonly tx: OutboxTransaction;
  readonly enqueuedAt: number;
  readonly dueAt: number;
  /** The column: as of {@link Row}. */
  readonly xid: number;
}

/** A transaction that enqueues: of an application, of an operator, or of a turn that brings in what is due. */
export class OutboxTransaction extends Transaction {
  readonly role: string;
  readonly rows: Row[] = [];
  readonly laterRows: LaterRow[] = [];
  /** Rows that the turn has brought in. */
  readonly brought: LaterRow[] = [];
  /** How many rows there were when the lock of each lane was taken. */
  readonly rowsBefore = new Map<string, number>();
  isNotifying = false;
  committedAt = 0;
  /** Number of turns of the relay that had been answered at the commit. */
  committedInTurn = 0;
  commitOrder = 0;
  /** A commit that does not wait for the disk. */
  readonly isAsynchronous: boolean;
  /** Slot in the snapshot with which the transaction began to read. */
  readonly slotSeen: number | undefined;

  constructor(role: string, isAsynchronous: boolean, slotSeen: number | undefined) {
    super();
    this.role = role;
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

export type TurnAnswer =
  | {
      readonly kind: "done";
      readonly isSaved: boolean;
      readonly found?: PollFound<Row> | PageFound<Row>;
      readonly due?: DueFound;
    }
  | { readonly kind: "deposed" };

const start: OutboxPosition = { from: "3:3:", to: undefined, after: 0n, series: [], skipped: [] };

/** Properties of a row that whoever writes it knows. */
type Known = Pick<Row, "role" | "route" | "destination" | "lane" | "messageId"> & Partial<Row>;

export class OutboxStore {
  readonly postgres: Postgres;
  readonly #world: OutboxWorld;
  readonly #faults: OutboxFaults;
  readonly rows: Table<bigint, Row>;
  readonly later: Table<bigint, LaterRow>;
  readonly turns: SavedTurn[] = [];
  /** Number of dead letters by message. */
  readonly deadLetters = new Map<string, number>();
  /** Number of turns of the relay that have been answered. */
  turnCount = 0;
  isAsleep = false;
  cluster = 1;
  slot = 0;
  #commits = 0;
  /** Grows when something is taken back: what was done may be open again. */
  #takenBack = 0;

  constructor(world: OutboxWorld, faults: OutboxFaults) {
    this.#world = world;
    this.#faults = faults;
    this.postgres = new Postgres(world);
    this.rows = new Table(this.postgres);
    this.later = new Table(this.postgres);
  }

  begin(role = "operator"): OutboxTransaction {
    const { random } = this.#world;
    const tx = new OutboxTransaction(role, random.chance(0.2), random.chance(0.2) ? this.slot : undefined);
    return this.postgres.begin(tx);
  }

  /** Waits for the key, then writes the message. */
  enqueue(tx: OutboxTransaction, target: Target, done: () => void): void {
    const { destination, route } = target;
    const lane = laneOf(tx, target);
    const write = (): void => {
      if (tx.state !== "running") return;
      if (lane !== undefined && !tx.rowsBefore.has(lane)) tx.rowsBefore.set(lane, tx.rows.length);
      const messageId = this.#world.newMessageId();
      this.#write(tx, { role: tx.role, route, destination, lane, messageId });
      if (this.isAsleep) tx.isNotifying = true;
      done();
    };
    if (lane === undefined) write();
    else this.postgres.lock(tx, lane, { waits: "transition: waited for a key" })(write);
  }

  /** Writes a message that is due later: without a wait for its key. */
  enqueueLater(tx: OutboxTransaction, target: Target, dueAt: number): void {
    if (tx.state !== "running") return;
    const { destination, route } = target;
    const row: LaterRow = {
      id: this.postgres.takeId(tx),
      role: tx.role,
      route,
      destination,
      lane: laneOf(tx, target),
      messageId: this.#world.newMessageId(),
      tx,
      enqueuedAt: this.#world.schedule.now,
      dueAt,
      xid: this.postgres.assignXid(tx),
    };
    tx.laterRows.push(row);
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
    const kept = [...this.rows.values()];
    for (const row of kept.sort(byId)) {
      if (row.enqueuedAt < since || dead.has(row.messageId)) continue;
      if (kept.some(({ id, enqueuedAt }) => id === row.copyOf && enqueuedAt >= since)) continue;
      this.#world.counts.add("transition: message written again");
      known.add(row.messageId);
      this.#write(tx, { ...row, copyOf: row.copyOf ?? row.id, isRepeated: true });
    }
    if (this.isAsleep) tx.isNotifying = true;
    this.commit(tx);
    return known;
  }

  #write(tx: OutboxTransaction, known: Known): void {
    const { now } = this.#world.schedule;
    tx.rows.push({
      copyOf: undefined,
      refusal: refusalOf(known.destination),
      mayBeThereSince: now,
      isRepeated: false,
      ...known,
      id: this.postgres.takeId(tx),
      bytes: 100,
      tx,
      enqueuedAt: now,
      enqueuedBy: now,
      slot: tx.slotSeen ?? this.slot,
      xid: this.postgres.assignXid(tx),
      cluster: this.cluster,
      isGone: false,
    });
  }

  /** Takes back what was enqueued behind a savepoint, with the locks that were taken there. */
  rollBackTo(tx: OutboxTransaction, rows: number, laterRows: number): void {
    if (tx.state !== "running") return;
    tx.laterRows.splice(laterRows);
    tx.rows.splice(rows);
    for (const [lane, rowsBefore] of tx.rowsBefore) {
      if (rowsBefore < rows) continue;
      tx.rowsBefore.delete(lane);
      this.postgres.unlock(tx, lane);
    }
  }

  commit(tx: OutboxTransaction): void {
    if (!this.postgres.isAvailable) this.postgres.abort(tx);
    if (tx.state !== "running") return;
    tx.committedAt = this.#world.schedule.now;
    tx.committedInTurn = this.turnCount;
    tx.commitOrder = this.#commits++;
    const write = (): void => {
      for (const row of tx.rows) if (!row.isGone) this.rows.set(row.id, row);
      for (const row of tx.laterRows) this.later.set(row.id, row);
      for (const { id } of this.#faults.bringsTwice === true ? [] : tx.brought) this.later.delete(id);
      this.#world.broughtIn(tx.brought);
      this.postgres.whenTakenBack((wasOnDisk) => {
        tx.state = "aborted";
        this.#world.counts.add("transition: message brought in was taken back", tx.brought.length);
        this.#world.lost(tx, wasOnDisk);
      });
    };
    this.postgres.commit(tx, write, !tx.isAsynchronous);
    if (tx.isNotifying) this.#world.notify();
  }

  // ---- what the relay asks ----

  /** The last turn of a relay. */
  get latest(): SavedTurn | undefined {
    return this.turns.at(-1);
  }

  /** Takes over: from now on no turn of another relay is saved. */
  take(owner: object): { readonly turn: bigint; readonly position: OutboxPosition } {
    const { latest } = this;
    let position = latest?.position ?? start;
    let adopted: readonly AdoptedRow[] = [];
    if (latest?.cluster !== this.cluster && !this.#faults.keepsForeignXids) {
      const xid = this.postgres.takeXid();
      const foreign = [...this.rows.values()].filter((row) => row.cluster !== this.cluster);
      adopted = foreign.map((row) => ({ row, xid: row.xid, cluster: row.cluster }));
      for (const row of foreign) {
        row.xid = row.cluster === latest?.cluster && isDone(row, position) ? 2 : xid;
        row.cluster = this.cluster;
      }
      position = start;
      this.#world.counts.add("transition: messages of another cluster adopted");
    }
    const turn = (latest?.turn ?? 0n) + 1n;
    this.#save({ turn, owner, position, cluster: this.cluster, dead: [] }, adopted);
    return { turn, position };
  }

  turn(owner: object, step: TurnStep<Row>): TurnAnswer {
    const { latest } = this;
    this.turnCount += 1;
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
    let times = brought?.left ?? [];
    let found: PollFound<Row> | PageFound<Row> | undefined;
    if (step.read?.kind === "poll") {
      found = this.#look(step.read);
      times = [...times, ...this.#leastDue(step.read.laterFrom)];
    } else if (step.read?.kind === "page") found = this.#page(step.read);
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
    if (isSaved) this.#save({ turn, owner, position, cluster: this.cluster, dead });
    const inMs = Math.max(0, Math.min(...times.map(([, dueAt]) => dueAt)) - this.#world.schedule.now);
    const due = { moved: brought?.count ?? 0, next: times.length === 0 ? undefined : { from: earliest(times), inMs } };
    return found === undefined ? { kind: "done", isSaved, due } : { kind: "done", isSaved, due, found };
  }

  /** Brings in what is due, in the transaction of the turn. The snapshot of its look may see that, or not. */
  #bring(from: DueTimes): { count: number; left: DueTime[] } {
    const { now } = this.#world.schedule;
    const { random, counts } = this.#world;
    const isKnown = ({ role, dueAt }: LaterRow): boolean => dueAt >= (from.get(role) ?? Number.POSITIVE_INFINITY);
    const page = [...this.later.values()].filter(
      (row) => isKnown(row) && (this.#faults.bringsEarly === true || row.dueAt <= now),
    );
    page.sort((one, other) => one.dueAt - other.dueAt || byId(one, other));
    const due = [...from.keys()].flatMap((role) => page.filter((row) => row.role === role).slice(0, 4));
    if (due.length > 0) {
      counts.add("transition: due messages brought in");
      const tx = this.begin("relay");
      this.postgres.assignXid(tx);
      if (random.chance(0.5)) this.postgres.takeXid();
      for (const later of due) {
        const { role, route, destination, lane, messageId, dueAt } = later;
        const known = { role, route, destination, lane, messageId, later };
        this.#write(tx, { ...known, mayBeThereSince: dueAt, isRepeated: true });
      }
      tx.brought.push(...due);
      this.commit(tx);
    }
    return { count: due.length, left: [...this.later.values()].filter(isKnown).map(dueTimeOf) };
  }

  /** When the messages are due that the snapshot does not see. */
  #leastDue(from: Snapshot | undefined): DueTime[] {
    const isNew = ({ xid }: LaterRow): boolean => {
      if (from === undefined) return true;
      return this.#faults.forgetsLateCommits === true ? xid >= parseSnapshot(from).xmax : !sees(from, xid);
    };
    return [...this.later.values()].filter(isNew).map(dueTimeOf);
  }

  #look({ from, series, maxMessages }: PollRead): PollFound<Row> {
    const to = this.postgres.snapshot();
    const found: { row: Row; name: SeriesName }[] = [];
    for (const row of this.#seen(to)) {
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

  #page({ role, route, excluded, from, to, after, maxMessages }: PageRead): PageFound<Row> {
    const isOf = (row: Row): boolean =>
      (role === undefined || row.role === role) &&
      (route === undefined || row.route === route || this.#faults.ignoresRoutes === true) &&
      this.#seriesOf(row, excluded) === undefined;
    const rows = this.#seen(to).filter((row) => isOf(row) && row.id > after && this.#isNew(row, from));
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

  #seen(to: Snapshot): Row[] {
    return [...this.rows.values()].filter((row) => sees(to, row.xid));
  }

  #isNew(row: Row, from: Snapshot): boolean {
    if (this.#faults.readsById === true) return row.id > this.#world.lastIdRead;
    return !sees(from, row.xid);
  }

  #compare(one: Row, other: Row): number {
    return (this.#faults.ordersByXid === true ? one.xid - other.xid : 0) || byId(one, other);
  }

  #save(saved: SavedTurn, adopted: readonly AdoptedRow[] = []): void {
    const before = this.turns.at(-1)?.position;
    const write = (): void => {
      this.turns.push(saved);
      for (const { message } of saved.dead) this.#countDead(message, 1);
      this.postgres.whenTakenBack(() => {
        this.turns.pop();
        for (const { message } of saved.dead) this.#countDead(message, -1);
        this.#world.forgotten(saved.dead);
        for (const { row, xid, cluster } of adopted) Object.assign(row, { xid, cluster });
      });
    };
    this.postgres.write(write, !this.#faults.readsBeforeFlush);
    const { position } = saved;
    if (position === before || this.#faults.keepsForeignXids === true || saved.cluster !== this.cluster) return;
    for (const row of this.#seen(this.postgres.snapshot())) {
      if (row.doneAsOf === this.#takenBack) continue;
      if (this.#world.isDone(row)) row.doneAsOf = this.#takenBack;
      else if (row.cluster === this.cluster && isDone(row, position)) {
        throw new Violation(`the position of the relay has passed ${row.messageId}, which is not done`);
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
    const { latest } = this;
    if (latest?.cluster !== this.cluster) return;
    const next = (this.slot + 1) % 3;
    const inSlot = [...this.rows.values()].filter(({ slot }) => slot === next);
    const written = [...this.postgres.running].flatMap((tx) => (tx instanceof OutboxTransaction ? tx.rows : []));
    const openInSlot = written.filter(({ slot, isGone }) => slot === next && !isGone);
    if (!this.#faults.truncatesBlindly) {
      if (openInSlot.length > 0) {
        this.#world.counts.add("transition: slot still written");
        return;
      }
      if (inSlot.some((row) => !isDone(row, latest.position))) {
        this.#world.counts.add("transition: slot not done");
        return;
      }
    }
    for (const row of openInSlot) row.isGone = true;
    this.postgres.write(() => {
      const { slot } = this;
      for (const { id } of inSlot) this.rows.delete(id);
      this.slot = next;
      this.postgres.whenTakenBack(() => {
        this.slot = slot;
      });
    });
    this.#world.counts.add("transition: slot truncated");
  }

  // ---- faults ----

  /** The server ends at once: what is not on its disk never was. */
  crash(): void {
    this.#takenBack += 1;
    this.postgres.crash();
  }

  /** A standby that is behind goes on. */
  failover(behind: number): void {
    this.#takenBack += 1;
    this.postgres.failover(behind);
  }

  /** A dump, restored elsewhere: its xids are those of another cluster. */
  restore(nextXid: number): void {
    this.cluster += 1;
    this.postgres.restore(nextXid);
  }
}

type DueTime = readonly [role: string, dueAt: number];

function dueTimeOf({ role, dueAt }: LaterRow): DueTime {
  return [role, dueAt];
}

function byId(one: { readonly id: bigint }, other: { readonly id: bigint }): number {
  return Number(one.id - other.id);
}

/** A message to here is too large. */
function refusalOf(destination: string): Row["refusal"] {
  return destination === "large" ? { code: "payload_too_large", message: "too large" } : undefined;
}

function isNamed(one: SeriesName, other: SeriesName): boolean {
  return one.role === other.role && one.route === other.route;
}

function laneOf({ role }: OutboxTransaction, { route, destination, key }: Target): string | undefined {
  return key === undefined ? undefined : [role, route, destination, key].join(" ");
}

/** By the position of the most specific series that the message belongs to. */
function isDone(row: Row, position: OutboxPosition): boolean {
  const { skipped, series } = position;
  if (skipped.includes(row.id)) return true;
  const { from, to, after } =
    series.find((each) => isNamed(each, row)) ??
    series.find((each) => each.role === row.role && each.route === undefined) ??
    position;
  return sees(from, row.xid) || (to !== undefined && sees(to, row.xid) && row.id <= after);
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
