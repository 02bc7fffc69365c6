/**
 * Run of the outbox: applications that write and enqueue, processes that relay, NATS, faults, and the rules that must
 * hold. Everything follows from the seed.
 */
import { type Doubt, isDroppedByItself, requiredSearch, verdictOf } from "../../../src/nats/outbox/doubt.js";
import type { PublishOutcome, PublishStep, TurnStep } from "../../../src/nats/outbox/relay.js";
import { Violation } from "../records.js";
import { SimulatedWorld } from "../world.js";
import type { OutboxMutant } from "./mutants.js";
import { RelayProcess, relaySettings } from "./relay-process.js";
import { type LaterRow, OutboxStore, type OutboxTransaction, type Row, type Target } from "./store.js";

export const outboxFaults = [
  "kill",
  "twin",
  "stall",
  "crash",
  "failover",
  "restore",
  "outage",
  "nats",
  "long",
  "setback",
  "away",
  "burst",
  "poison",
] as const;
type Fault = (typeof outboxFaults)[number];

/** Time for which a stream knows the ids of its messages: more than twice as long as the slowest publish takes. */
const duplicateWindowMs = 2_600;
const faultsUntilMs = 6_000;
const settleWithinMs = 120_000;
const maxSteps = 60_000;
/** The stream of the last one is a work queue: it removes what was consumed. */
const takingDestinations = ["orders", "audit", "work"] as const;
const destinations = [...takingDestinations, "flaky", "missing", "large", "east"] as const;
/** A domain that is away now and then. */
const awayRoute = "domain east";
const roles = ["shop", "billing"] as const;
/** A role that enqueues a burst now and then, some of it to where nobody takes it. */
const hostile = "mallory";
/** So many turns are answered at the most between a commit and the publish, whatever other roles do. */
const fewTurns = 30;

interface Published {
  readonly row: Row;
  /** Rows with the same message id, which were acknowledged because it was there. */
  readonly again: Row[];
  readonly at: number;
  /** Its stream has removed it then. */
  readonly consumedAt: number;
}

export class OutboxWorld extends SimulatedWorld {
  readonly store: OutboxStore;
  readonly mutant: OutboxMutant;
  #stream: Published[] = [];
  #byId = new Map<string, Published[]>();
  readonly #refused = new Set<string>();
  /** Nobody could tell whether their stream had them. */
  readonly #undecided = new Set<string>();
  readonly #lost = new Set<string>();
  /** Messages that a stream has had. */
  readonly #stored = new Set<string>();
  readonly #forgotten = new Set<string>();
  readonly #processes: RelayProcess[] = [];
  readonly #kinds: readonly Fault[];
  readonly #all: Row[] = [];
  readonly #allLater: LaterRow[] = [];
  readonly #broughtIn = new Set<LaterRow>();
  /** Nothing goes wrong. */
  readonly #isCalm: boolean;
  readonly #losesAnswers: boolean;
  #natsIsUp = true;
  #natsStartedAt = 0;
  #isEastAway = false;
  #wasEastAway = false;
  /** Grows when the store of NATS is set back, and all connections end. */
  #natsStores = 0;
  /** Rows that were lost then, as they were published, and those that were acknowledged because of them. */
  readonly #setBackRows = new Set<Row>();
  readonly #setBackIds = new Set<string>();
  /** Rows that have arrived at NATS, with any outcome. */
  readonly #arrived = new Set<Row>();
  #messageIds = 0;
  faultRate: number;

  constructor(seed: number, mutant: OutboxMutant = {}) {
    super(seed);
    this.mutant = mutant;
    this.store = new OutboxStore(this, mutant.store ?? {});
    const calm = this.random.chance(0.15);
    this.#isCalm = calm;
    const rate = mutant.faults === undefined ? 0.35 : 1;
    // Chosen without a random number, since known seeds would show something else.
    const isPoisoned = mutant.faults?.includes("poison") ?? seed % 8 === 6;
    this.#kinds = outboxFaults.filter((kind) => {
      if (kind === "poison") return isPoisoned && !calm;
      return (mutant.faults?.includes(kind) ?? true) && !calm && this.random.chance(rate);
    });
    this.faultRate = calm ? 0 : this.random.pick([0, 0.02, 0.1]);
    this.#losesAnswers = this.faultRate > 0;
  }

  run(): void {
    this.#start();
    this.#plan();
    this.runUntil(faultsUntilMs, maxSteps);
    this.#calm();
    this.runUntil(faultsUntilMs + settleWithinMs, maxSteps, (steps) => steps % 32 === 0 && this.#isAtRest());
    this.#checkEnd();
  }

  // ---- what the models ask ----

  newMessageId(): string {
    this.#messageIds += 1;
    return `m${this.#messageIds}`;
  }

  /** Mutants: what a relay that reads by id takes for new. */
  get lastIdRead(): bigint {
    return this.#stream.reduce((most, { row: { id } }) => (id > most ? id : most), 0n);
  }

  /** True if the destination has had the message, or it is a dead letter, or need not be delivered. */
  isDone({ messageId, copyOf }: Row): boolean {
    return (
      this.#stored.has(messageId) ||
      copyOf !== undefined ||
      this.#lost.has(messageId) ||
      this.#deadLetters.has(messageId)
    );
  }

  /** A turn of the relay, as that means it. */
  turnBegins({ position }: TurnStep<Row>): void {
    for (const { route } of position.series) {
      if (route === undefined || route.startsWith("missing")) continue;
      this.counts.add("transition: route away");
      if (!this.#wasEastAway && !this.#losesAnswers && this.#kinds.every((kind) => kind !== "setback"))
        throw new Violation(`the route "${route}" is taken for away, and it never was`);
    }
  }

  notify(): void {
    this.counts.add("transition: notified");
    for (const process of this.#processes) {
      this.schedule.after(this.random.delay(1), () => process.notified());
    }
  }

  /** Messages that were due have been brought in, in one transaction. */
  broughtIn(rows: readonly LaterRow[]): void {
    for (const row of rows) {
      if (this.#broughtIn.has(row)) throw new Violation(`${row.messageId} was brought in twice`);
      this.#broughtIn.add(row);
    }
  }

  /** A crash or a failover has taken back a commit, which may have been on the disk of the server that is gone. */
  lost(tx: OutboxTransaction, wasDurable: boolean): void {
    for (const row of tx.brought) this.#broughtIn.delete(row);
    for (const { messageId } of tx.laterRows) this.#lost.add(messageId);
    for (const row of tx.rows) {
      const { messageId, later, copyOf } = row;
      // By the row, not by the message: of one that was written again the first row is in the stream, and only the commit
      // of the second one is taken back.
      if (!wasDurable && this.#arrived.has(row)) {
        throw new Violation(`${messageId} was published before its commit was durable`);
      }
      // What was brought in is due again. A message that was written again is lost if NATS has lost the first one.
      const isWrittenAgain = copyOf !== undefined;
      const isMissing = this.#setBackIds.has(messageId) && !this.#byId.has(messageId);
      if (isWrittenAgain ? isMissing : later === undefined) this.#lost.add(messageId);
    }
  }

  /** A failover has taken back dead letters: what followed them is in the stream, and they may be published yet. */
  forgotten(dead: readonly { readonly message: Row }[]): void {
    for (const { message } of dead) this.#forgotten.add((message.original ?? message).messageId);
  }

  /** To NATS, which may be away, refuse, or answer to nobody. */
  publish(
    process: RelayProcess,
    { message, doubt }: PublishStep<Row>,
    answer: (outcome: PublishOutcome) => void,
  ): void {
    const row = message.original ?? message;
    const { random, schedule, counts } = this;
    const { endedConnections } = process;
    const settle = (outcome: PublishOutcome): void => {
      const store = this.#natsStores;
      const ended: PublishOutcome = { kind: "unavailable", scope: "connection", mayBeThere: true };
      schedule.after(random.delay(1), () => answer(store === this.#natsStores ? outcome : ended));
    };
    if (row.destination === "large") throw new Violation(`${row.messageId} was published, though NATS would refuse it`);
    this.#checkTurns(row);
    const isLost = random.chance(this.faultRate);
    const arrives = !isLost || random.chance(0.5);
    schedule.after(random.delay(random.chance(this.faultRate / 4) ? 20 : 0.5), () => {
      // A server that ends a connection reads no more from it.
      if (endedConnections !== process.endedConnections) return;
      if (!this.#natsIsUp || !arrives) {
        counts.add("fault: publish lost");
        const scope = this.#natsIsUp ? random.pick(["connection", "route"] as const) : "connection";
        // It may not know that it was not sent.
        settle({ kind: "unavailable", scope, mayBeThere: random.chance(0.5) });
        return;
      }
      if (row.destination === "poison") {
        counts.add("transition: connection ended by a message");
        this.#refused.add(row.messageId);
        process.cut(this.mutant.believesOutage === true);
        schedule.after(random.delay(5), () => process.resumed());
        return;
      }
      if (row.route === awayRoute && this.#isEastAway) {
        counts.add("fault: domain away");
        settle({ kind: "unavailable", scope: "route", mayBeThere: random.chance(0.5) });
        return;
      }
      this.#arrived.add(row);
      const verdict = this.#verdictOf(row, doubt);
      if (verdict === "known") {
        counts.add("transition: message in doubt was there");
        for (const { again } of this.#byId.get(row.messageId) ?? []) again.push(row);
      } else if (verdict === "undecided") {
        counts.add("transition: message stays in doubt");
        this.#undecided.add(row.messageId);
        settle({ kind: "undecided", code: "outcome_unknown", message: "not there any more" });
        return;
      } else if (row.destination.startsWith("missing") || (row.destination === "flaky" && random.chance(0.3))) {
        counts.add("fault: publish refused");
        this.#refused.add(row.messageId);
        const refusal = { code: "503", message: "no stream" };
        settle(
          row.destination === "flaky"
            ? { kind: "refused", ...refusal }
            : { kind: "missing", mayBeThere: random.chance(0.5), ...refusal },
        );
        return;
      } else this.#store(row);
      if (isLost) counts.add("fault: acknowledgement lost");
      settle(
        isLost
          ? { kind: "unavailable", scope: random.pick(["connection", "route"]), mayBeThere: true }
          : { kind: "published", as: "stored" },
      );
    });
  }

  /** Verdict of a search, where one is needed. */
  #verdictOf(row: Row, doubt: Doubt | undefined): ReturnType<typeof verdictOf> {
    const { now } = this.schedule;
    const { believesDoubtful, believesAgain, believesLooks } = this.mutant;
    const needed = requiredSearch(row, doubt, now, duplicateWindowMs / 2);
    if (needed === undefined) return "publish";
    const isGoneSince =
      (since: number) =>
      ({ row: { destination }, at, consumedAt }: Published): boolean =>
        destination === row.destination && at >= since && consumedAt <= now;
    const hasGap = this.#stream.some(isGoneSince(needed.since));
    const since = hasGap && this.mutant.believesMemory !== true ? this.#natsStartedAt : 0;
    if (isDroppedByItself(row, needed, now, { windowMs: duplicateWindowMs, since })) return "publish";
    if (row.isRepeated ? believesAgain === true : believesDoubtful === true) return "publish";
    this.counts.add("transition: looked for a message in doubt");
    const isThere = this.#byId.get(row.messageId)?.some(({ consumedAt }) => consumedAt > now) === true;
    const looked = {
      ids: new Set(isThere ? [row.messageId] : []),
      completeSince: hasGap ? Number.POSITIVE_INFINITY : 0,
      isConsumed: row.destination === "work",
    };
    const verdict = verdictOf(row, doubt, needed, looked);
    return verdict === "undecided" && believesLooks === true ? "publish" : verdict;
  }

  #store(row: Row): void {
    const { now } = this.schedule;
    const known = this.#byId.get(row.messageId) ?? [];
    // Of what was removed it has forgotten the id when it started.
    const isKnown = ({ at, consumedAt }: Published): boolean =>
      now - at < duplicateWindowMs && (at >= this.#natsStartedAt || consumedAt > this.#natsStartedAt);
    if (known.some(isKnown)) {
      this.counts.add("transition: duplicate dropped by the stream");
      for (const { again } of known) again.push(row);
      return;
    }
    if (known.length > 0) throw new Violation(`${row.messageId} is in the stream twice`);
    if (!this.#isCommitted(row)) throw new Violation(`${row.messageId} was published before its commit`);
    if (row.later !== undefined && now < row.later.dueAt) {
      throw new Violation(`${row.messageId} was published before it was due`);
    }
    const isConsumed = row.destination === "work" && this.random.chance(0.5);
    if (isConsumed) this.counts.add("transition: message consumed");
    const published = {
      row,
      again: [],
      at: now,
      consumedAt: isConsumed ? now + this.random.between(1, 500) : Number.POSITIVE_INFINITY,
    };
    this.#stored.add(row.messageId);
    this.#stream.push(published);
    this.#byId.set(row.messageId, [...known, published]);
    this.#checkLatency(published);
  }

  /**
   * Checks that without faults a message is published within a few turns, though another role has enqueued thousands,
   * or has filled its share with messages to a domain that is away.
   */
  #checkTurns(row: Row): void {
    if (!this.#isCalm || row.role === hostile || row.lane !== undefined || row.later !== undefined || this.#wasEastAway)
      return;
    const { committedInTurn } = row.tx;
    const turns = this.store.turnCount - committedInTurn;
    if (row.tx.rows.length >= relaySettings.pageMessages || turns <= fewTurns) return;
    // What its role has committed shortly before comes first, in pages of four. Between two of them are two looks and a page of the
    // hostile role: a turn for each message.
    const isOwn = ({ role, tx }: Row) =>
      role === row.role && tx.committedInTurn <= committedInTurn && tx.committedInTurn > committedInTurn - fewTurns;
    const own = this.#all.filter(isOwn).length;
    if (turns > fewTurns + own)
      throw new Violation(`${row.messageId} of "${row.role}" was published ${turns} turns after its commit`);
  }

  /**
   * Checks that without faults a message waits about as long as its transaction stayed open after it, and not for a
   * slow poll.
   */
  #checkLatency({ row, at }: Published): void {
    if (!this.#isCalm || row.copyOf !== undefined || row.role === hostile || row.route === awayRoute) return;
    // It waits for what is in doubt until that is given up.
    const isBefore = (other: Row | LaterRow): boolean =>
      other.lane === row.lane && this.#undecided.has(other.messageId);
    if (row.lane !== undefined && (this.#all.some(isBefore) || this.#allLater.some(isBefore))) return;
    if (row.later !== undefined) {
      const { dueAt, tx, enqueuedAt } = row.later;
      const knownAt = tx.committedAt + relaySettings.slowPollMs / 5 + 2 * (tx.committedAt - enqueuedAt);
      const isAlone = this.#stream.filter((other) => other.row.lane === row.lane).length < 2;
      if (isAlone && at > Math.max(dueAt, knownAt) + 200)
        throw new Violation(`${row.messageId} was published ${Math.round(at - dueAt)} ms after it was due`);
      return;
    }
    const openMs = row.tx.committedAt - row.enqueuedAt;
    const lateMs = at - row.tx.committedAt;
    const hasWaited = this.#stream.filter((other) => other.row.lane === row.lane).length > 1;
    const awayMs = this.#wasEastAway ? 5 * relaySettings.awayMs : 0;
    const isQuick = lateMs <= relaySettings.slowPollMs / 5 + 2 * openMs + awayMs;
    if (!isQuick && !hasWaited)
      throw new Violation(`${row.messageId} was published ${Math.round(lateMs)} ms after its commit`);
  }

  // ---- the application ----

  #plan(): void {
    const { random } = this;
    const moments = Array.from({ length: random.between(2, 5) }, () => random.between(5, faultsUntilMs - 1_000));
    for (const moment of moments) {
      const writers = random.between(1, 8);
      const spreadMs = random.pick([0, 3, 30]);
      for (let writer = 0; writer < writers; writer++) {
        this.schedule.after(moment + random.next() * spreadMs, () => this.#write(random.between(1, 4)));
      }
    }
    if (this.#isCalm) {
      // What delays nobody else is no fault for others.
      if (random.chance(0.5)) this.schedule.after(random.pick(moments), () => this.#burst(random.pick([50, 300])));
      if (random.chance(0.5)) this.schedule.after(random.pick(moments) * random.next(), () => this.#sendEastAway());
    }
    const faultAt = () => Math.min(random.pick(moments) + random.delay(random.pick([2, 20, 200])), faultsUntilMs - 500);
    this.planFaults(this.#kinds, this.mutant.faultTimes, faultAt, (kind) => this.#inject(kind));
    for (let at = 100; at < faultsUntilMs + 3_000; at += random.between(50, 400)) {
      this.schedule.after(at, () => this.store.postgres.isAvailable && this.store.rotate());
    }
  }

  /** Some transactions, one after another, each with messages, pauses, savepoints, and an end. */
  #write(transactions: number): void {
    const { random, schedule, store, counts } = this;
    if (transactions === 0 || !store.postgres.isAvailable) return;
    const tx = store.begin(random.pick(roles));
    const isLong = random.chance(0.05);
    const pause = (): number => random.delay(isLong ? 100 : random.pick([0.1, 1, 5]));
    if (random.chance(0.5)) {
      store.postgres.assignXid(tx);
      counts.add("transition: early xid");
    }
    let left = random.chance(0.05) ? 40 : random.between(1, 6);
    let savepoint: readonly [rows: number, later: number] | undefined;
    const step = (): void => {
      if (tx.state !== "running") return;
      if (left === 0) {
        if (random.chance(0.15)) {
          counts.add("transition: rolled back");
          store.postgres.abort(tx);
        } else store.commit(tx);
        this.#write(transactions - 1);
        return;
      }
      left -= 1;
      if (random.chance(0.1)) savepoint = [tx.rows.length, tx.laterRows.length];
      if (savepoint !== undefined && random.chance(0.2)) {
        counts.add("transition: savepoint rolled back");
        store.rollBackTo(tx, ...savepoint);
        savepoint = undefined;
      }
      const key = random.chance(0.7) ? `k${random.between(1, 3)}` : undefined;
      const target = this.#target(
        random.pick(this.#isCalm ? [...takingDestinations, "east", "east", "east", "east"] : destinations),
        key,
      );
      if (random.chance(0.2)) {
        store.enqueueLater(tx, target, schedule.now + random.pick([1, 30, 300, 2_000]) * random.next());
        this.#allLater.push(tx.laterRows.at(-1)!);
        schedule.after(pause(), step);
        return;
      }
      store.enqueue(tx, target, () => {
        this.#all.push(tx.rows.at(-1)!);
        schedule.after(pause(), step);
      });
      // Two that wait for each other's keys: one is ended.
      schedule.after(1_000, () => {
        if (tx.state === "running" && !isLong) store.postgres.abort(tx);
      });
    };
    schedule.after(pause(), step);
  }

  #target(destination: string, key?: string): Target {
    return { destination, route: destination === "east" ? awayRoute : destination, key };
  }

  /** Enqueues messages in one transaction of the hostile role. */
  #burst(messages: number): void {
    const { random, store } = this;
    if (!store.postgres.isAvailable) return;
    const tx = store.begin(hostile);
    const isMissing = random.chance(0.3);
    for (let left = messages; left > 0; left--) {
      const destination = isMissing ? `missing ${left}` : random.pick(["orders", "orders", "east"]);
      const key = random.chance(0.1) ? "k1" : undefined;
      store.enqueue(tx, this.#target(destination, key), () => {
        this.#all.push(tx.rows.at(-1)!);
      });
    }
    store.commit(tx);
  }

  /** Enqueues a message at which the server ends the connection, among others. */
  #poison(): void {
    const { random, store } = this;
    if (!store.postgres.isAvailable) return;
    const tx = store.begin(random.pick(roles));
    for (const destination of ["orders", "audit", "poison", "orders", "audit"]) {
      const key = random.chance(0.3) ? "k1" : undefined;
      store.enqueue(tx, this.#target(destination, key), () => this.#all.push(tx.rows.at(-1)!));
    }
    store.commit(tx);
  }

  #sendEastAway(): void {
    this.#isEastAway = true;
    this.#wasEastAway = true;
    this.schedule.after(this.random.pick([50, 500, 3_000]), () => (this.#isEastAway = false));
  }

  // ---- faults ----

  #inject(kind: Fault): void {
    const { random, counts, schedule, store } = this;
    counts.add(`fault: ${kind}`);
    const process = this.#alive.at(-1);
    if (kind === "kill") {
      process?.kill();
      schedule.after(random.delay(50), () => this.#start());
    } else if (kind === "twin") this.#start();
    else if (kind === "away") this.#sendEastAway();
    else if (kind === "burst") this.#burst(random.pick([20, 100]));
    else if (kind === "stall") {
      process?.stall();
      schedule.after(random.pick([30, 300, 3_000]), () => process?.wake());
      if (random.chance(0.7)) schedule.after(random.delay(30), () => this.#start());
    } else if (kind === "crash") store.crash();
    else if (kind === "failover") {
      store.failover(random.between(1, 40));
    } else if (kind === "restore") {
      store.restore(random.pick([3, 50, 100, 1_000, 100_000]));
    } else if (kind === "outage") {
      store.postgres.isAvailable = false;
      schedule.after(random.pick([20, 200, 2_000]), () => (store.postgres.isAvailable = true));
    } else if (kind === "nats") {
      this.#natsIsUp = false;
      if (random.chance(0.5)) for (const each of this.#processes) each.cut(true);
      schedule.after(random.pick([20, 200, 3_000]), () => this.#natsReturns());
    } else if (kind === "poison") this.#poison();
    else if (kind === "setback") this.#setBack(random.pick([1, 100, 1_000]));
    else if (kind === "long") {
      const tx = store.begin();
      store.postgres.assignXid(tx);
      schedule.after(random.between(500, 4_000), () => store.commit(tx));
    }
  }

  /** The store of NATS is an older copy of itself. Then what it lost is published again. */
  #setBack(byMs: number): void {
    const { now } = this.schedule;
    this.#natsStores += 1;
    const lost = this.#stream.filter(({ at }) => at > now - byMs);
    this.#stream = this.#stream.filter(({ at }) => at <= now - byMs);
    this.#byId = new Map();
    for (const published of this.#stream) {
      const { messageId } = published.row;
      this.#byId.set(messageId, [...(this.#byId.get(messageId) ?? []), published]);
    }
    for (const { row, again } of lost) {
      this.counts.add("transition: message lost by NATS");
      for (const each of [row, ...again]) this.#setBackRows.add(each);
      this.#setBackIds.add(row.messageId);
    }
    const since = Math.min(now, ...lost.map(({ row }) => row.enqueuedAt));
    const replay = (): void => {
      if (!this.store.postgres.isAvailable) {
        this.schedule.after(10, replay);
        return;
      }
      // What the outbox has by now, not what it had when NATS lost it: while Postgres is away nobody can ask for that. Slots
      // have no least age here, so that one may be truncated as soon as Postgres is back.
      const known = this.store.replay(since);
      for (const { row } of lost) if (!known.has(row.messageId)) this.#lost.add(row.messageId);
    };
    replay();
  }

  #natsReturns(): void {
    // What a relay that was replaced publishes late, and what a failover brings in again at once, is dropped by the stream alone: then
    // its server must not start, too.
    const isAlone = !this.#kinds.some((kind) => kind === "stall" || kind === "twin" || kind === "failover");
    if (!this.#natsIsUp && isAlone && this.random.chance(0.7)) this.#natsStartedAt = this.schedule.now;
    this.#natsIsUp = true;
    for (const process of this.#processes) process.resumed();
  }

  #calm(): void {
    this.faultRate = 0;
    this.store.postgres.isAvailable = true;
    this.#isEastAway = false;
    this.#natsReturns();
    for (const process of this.#processes) process.wake();
    this.#start();
  }

  #start(): void {
    this.#processes.push(new RelayProcess(this));
  }

  get #alive(): readonly RelayProcess[] {
    return this.#processes.filter(({ isDead, isDeposed }) => !isDead && !isDeposed);
  }

  // ---- checks ----

  get #expected(): readonly (Row | LaterRow)[] {
    return [...this.#all, ...this.#allLater].filter((row) => isCommitted(row) && !this.#lost.has(row.messageId));
  }

  /** A message, by the transaction of whoever enqueued it. */
  #isCommitted(row: Row): boolean {
    if (this.#lost.has(row.messageId)) return true;
    return row.later === undefined ? row.copyOf !== undefined || isCommitted(row) : isCommitted(row.later);
  }

  get #deadLetters(): ReadonlyMap<string, number> {
    return this.store.deadLetters;
  }

  #isAtRest(): boolean {
    const alive = this.#alive;
    if (this.schedule.now < faultsUntilMs + 3_500 || alive.length === 0 || !alive.some(({ isIdle }) => isIdle))
      return false;
    const dead = this.#deadLetters;
    return this.#expected.every(({ messageId }) => this.#isThere(messageId, dead));
  }

  #isThere(messageId: string, dead: ReadonlyMap<string, number>): boolean {
    return this.#byId.has(messageId) || dead.has(messageId);
  }

  #checkEnd(): void {
    const dead = this.#deadLetters;
    for (const { messageId, tx } of this.#expected) {
      if (!this.#isThere(messageId, dead)) {
        throw new Violation(
          `${messageId} of transaction ${tx.xid} was committed, and is neither in the stream nor a dead letter`,
        );
      }
    }
    const large = new Set<string>();
    for (const { destination, messageId } of [...this.#all, ...this.#allLater]) {
      if (destination === "large") large.add(messageId);
    }
    for (const [messageId, times] of dead) {
      this.counts.add("transition: dead letter");
      if (times > 1) throw new Violation(`${messageId} is a dead letter ${times} times`);
      if (!this.#refused.has(messageId) && !this.#undecided.has(messageId) && !large.has(messageId))
        throw new Violation(`${messageId} is a dead letter, though NATS has not refused it`);
    }
    for (const { row } of this.#stream) {
      if (!this.#isCommitted(row)) {
        throw new Violation(`${row.messageId} is in the stream, and was rolled back`);
      }
    }
    for (const { isIdle, skipped } of this.#alive) {
      if (isIdle && skipped.length > 0) throw new Violation(`dead letters ${skipped} are skipped for ever`);
    }
    this.#checkOrder();
  }

  /** In order are, of each lane: what was enqueued, what was due, and what was published again. */
  #checkOrder(): void {
    const last = new Map<string, Row>();
    for (const { row } of this.#stream) {
      const { messageId } = row;
      if (row.lane === undefined || this.#lost.has(messageId) || this.#forgotten.has(messageId)) continue;
      // It had been acknowledged before NATS lost it, so that what comes later went on. The next relay may publish it again.
      if (this.#setBackRows.has(row)) continue;
      const name = `${row.lane} ${row.copyOf !== undefined} ${row.later !== undefined}`;
      const before = last.get(name);
      if (before !== undefined && !isInOrder(before, row))
        throw new Violation(
          `${row.messageId} of "${row.lane}" is behind ${before.messageId}, and was committed or due before it`,
        );
      last.set(name, row);
    }
  }
}

function isInOrder(before: Row, row: Row): boolean {
  if (row.copyOf !== undefined) return before.tx !== row.tx || before.id < row.id;
  if (before.later !== undefined && row.later !== undefined) {
    // One that was committed, or found again, after the other had been brought in comes behind that.
    const isTogether = before.tx === row.tx;
    return !isTogether || before.later.dueAt <= row.later.dueAt;
  }
  return before.tx.commitOrder < row.tx.commitOrder || (before.tx === row.tx && before.id < row.id);
}

/** True for a committed row: a transaction does not know rows that were rolled back to a savepoint. */
function isCommitted(row: Row | LaterRow): boolean {
  const { state, rows, laterRows } = row.tx;
  return state === "committed" && (rows.includes(row as Row) || laterRows.includes(row as LaterRow));
}
