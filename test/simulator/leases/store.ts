/**
 * Postgres as those see it who enqueue and handle: one row for a message until it is handled. A row says which term of a member
 * has it, when it is due and how often it was tried. A row whose term has ended is free: nothing is written to give it back.
 */
import { Postgres, type Steps, Table, Transaction } from "../postgres.js";
import { Violation } from "../records.js";
import type { LeaseFaults } from "./mutants.js";
import type { LeaseWorld } from "./world.js";

export const topics = ["t", "u"] as const;
export const groups = ["red", "blue"] as const;

/** Message as it was enqueued. */
export interface Enqueued {
  readonly id: number;
  readonly topic: string;
  /** Role that enqueued it: each has an order of its own. */
  readonly role: string;
  readonly key: string | undefined;
  /** Each listener outside of a group, and each group, has a copy. */
  readonly isToAll: boolean;
}

export interface Row {
  readonly id: number;
  /** Who may take it: `t` any listener, `t group red`, `t listener m1`. */
  readonly place: string;
  readonly message: Enqueued;
  /** Number of the row that it is a copy of; its own if it is none. */
  readonly origin: number;
  readonly dueAt: number;
  /** Number of failed attempts, those included that ended with their process. */
  readonly attempts: number;
  /** Term of the member that has it. */
  readonly lease: number | undefined;
}

/** Term of a member: from a start, or from the loss of the term before, to its end. */
export interface Term {
  readonly name: string;
  readonly group: string | undefined;
  readonly beatAt: number;
  /** It was silent for too long. What it had counts as tried. */
  readonly isGone: boolean;
}

/** What an operator has set for a topic. */
interface Setting {
  readonly isPaused: boolean;
  /** Undefined: no limit. */
  readonly limit: Limit | undefined;
  /** Time at which as many messages as `burst` may start again. */
  readonly fullAt: number;
}

interface Limit {
  /** Number of messages that members may have at a time. */
  readonly running: number;
  /** Starts never exceed burst + time / interval. */
  readonly burst: number;
  readonly intervalMs: number;
}

/** Message of a limited topic that a member was given: taking it is its start. */
interface Start {
  readonly topic: string;
  readonly term: number;
  readonly at: number;
}

interface TakeRequest {
  readonly term: number;
  /** The topic, if it has a limit: no other one is asked for with it. */
  readonly limited: string | undefined;
  readonly places: readonly string[];
  /** Numbers up to which the member has looked, by place. */
  readonly after: ReadonlyMap<string, number>;
  /** Look at all rows, not only at those behind `after` and those that are due again. */
  readonly looksBehind: boolean;
  readonly most: number;
}

export interface Taken {
  readonly rows: readonly Row[];
  readonly after: ReadonlyMap<string, number>;
  /** There are more rows than it had room for. */
  readonly hasMore: boolean;
  /** Topics with a limit that were asked for with others. */
  readonly limited: readonly string[];
  /** Time after which the limit may let more start. */
  readonly waitMs: number;
}

/** Row of a lane at some moment. */
interface Seen {
  readonly row: Row;
  /** The member that has it goes on. */
  readonly goesOn: boolean;
}

/** What became of a row whose handler failed. */
export type Failed = "gone" | "given up" | "put off";

/** Time without a beat after which others release what a member has. */
export const leaseMs = 400;
const maxAttempts = 4;

export class LeaseStore {
  readonly rows: Table<number, Row>;
  readonly terms: Table<number, Term>;
  /** What was committed, and not lost by a failover. */
  readonly messages: Table<number, Enqueued>;
  /** Places of the copies of a message. */
  readonly copies: Table<number, readonly string[]>;
  readonly #dead: Table<string, Row>;
  /** Effects of handlers, by {@link nameOf}. */
  readonly effects: Table<string, Row>;
  readonly settings: Table<string, Setting>;
  /** Starts of limited topics that may still run, by row. */
  readonly #starts: Table<number, Start>;
  /** All starts of limited topics. */
  readonly #started: Table<number, Start>;
  #nextStart = 1;
  /** Row that was handled last of a lane. */
  readonly #lastOf: Table<string, Row>;
  readonly postgres: Postgres;
  readonly #world: LeaseWorld;
  readonly #faults: LeaseFaults;
  /** Upper bounds of the failed attempts, by row. */
  readonly #tried = new Map<number, number>();
  #nextTerm = 1;

  constructor(world: LeaseWorld, faults: LeaseFaults) {
    this.#world = world;
    this.#faults = faults;
    this.postgres = new Postgres(world);
    this.rows = new Table(this.postgres);
    this.terms = new Table(this.postgres);
    this.#dead = new Table(this.postgres);
    this.effects = new Table(this.postgres);
    this.messages = new Table(this.postgres);
    this.copies = new Table(this.postgres);
    this.#lastOf = new Table(this.postgres);
    this.settings = new Table(this.postgres);
    this.#starts = new Table(this.postgres);
    this.#started = new Table(this.postgres);
  }

  /** Handled, or given up. */
  isOver(name: string): boolean {
    return this.effects.has(name) || this.#dead.has(name);
  }

  // ---- enqueue ----

  /** A transaction of a user. The lock of a key makes the order of its numbers that of the commits. */
  enqueue(messages: readonly Enqueued[], ended: (isCommitted: boolean) => void): void {
    const tx = new Transaction();
    this.postgres.run(tx, this.#enqueueing(tx, messages), (done) => ended(done === true));
  }

  *#enqueueing(tx: Transaction, messages: readonly Enqueued[]): Steps<boolean> {
    const { random } = this.#world;
    const made: Row[] = [];
    const inOrderOfKeys = messages.toSorted((one, other) => (keyOf(one) ?? "").localeCompare(keyOf(other) ?? ""));
    for (const message of inOrderOfKeys) {
      const key = keyOf(message);
      if (key !== undefined) yield this.postgres.lock(tx, `enqueue ${key}`);
    }
    for (const message of messages) {
      const id = Number(this.postgres.takeId(tx));
      made.push({ id, place: message.topic, message, origin: id, dueAt: 0, attempts: 0, lease: undefined });
      if (random.chance(0.2)) yield this.postgres.sleep(random.delay(2));
    }
    if (random.chance(0.2)) yield this.postgres.sleep(random.delay(60));
    if (random.chance(0.05)) return false;
    this.postgres.commit(tx, () => {
      for (const row of made) {
        this.rows.set(row.id, row);
        this.messages.set(row.message.id, row.message);
      }
    });
    this.#world.notify();
    return true;
  }

  // ---- settings ----

  pause(topic: string, isPaused: boolean): void {
    this.postgres.write(() => this.settings.set(topic, { ...this.#settingOf(topic), isPaused }));
  }

  limit(topic: string, limit: Limit | undefined): void {
    this.postgres.write(() => {
      this.settings.set(topic, { ...this.#settingOf(topic), limit });
      if (limit === undefined) return;
      // What members have counts from now on.
      for (const { id, message, lease } of this.rows.values())
        if (message.topic === topic && lease !== undefined && this.goesOn(lease))
          this.#starts.set(id, { topic, term: lease, at: this.#world.schedule.now });
    });
  }

  #settingOf(topic: string): Setting {
    return this.settings.get(topic) ?? { isPaused: false, limit: undefined, fullAt: 0 };
  }

  /** Number of messages of a limited topic that members have. A member that stands still has them until its term ends. */
  #running(topic: string): number {
    let running = 0;
    for (const [id, start] of this.#starts) {
      const beatAt = this.terms.get(start.term)?.beatAt ?? 0;
      const counts = this.#faults.countsNoSilent !== true || this.#world.schedule.now - beatAt < leaseMs / 4;
      if (start.topic === topic && this.#isHeld(id, start) && counts) running += 1;
    }
    return running;
  }

  /** True if the member still has the row. What has ended is forgotten with the next take. */
  #isHeld(id: number, { term }: Start): boolean {
    return this.rows.get(id)?.lease === term && this.goesOn(term);
  }

  /** Number of messages that may start, and the time after which more may. */
  *#admit(tx: Transaction, topic: string, limit: Limit): Steps<{ most: number; waitMs: number }> {
    const { random, schedule, counts } = this.#world;
    const early = this.#faults.countsBeforeLock === true ? this.#admitted(topic, limit) : undefined;
    if (early !== undefined) yield this.postgres.sleep(random.delay(3));
    if (this.#faults.locksNoSettings !== true && !this.postgres.tryLock(tx, `settings ${topic}`)) {
      counts.add("transition: another one takes of the limited topic");
      return { most: 0, waitMs: random.between(1, 5) };
    }
    yield this.postgres.sleep(random.delay(1));
    const most = early ?? this.#admitted(topic, limit);
    if (most > 0) return { most, waitMs: 0 };
    counts.add("transition: a topic is at its limit");
    const { fullAt } = this.#settingOf(topic);
    const waitMs = fullAt - (limit.burst - 1) * limit.intervalMs - schedule.now;
    return { most, waitMs: waitMs > 0 ? waitMs : 50 };
  }

  #admitted(topic: string, { running, burst, intervalMs }: Limit): number {
    const { now } = this.#world.schedule;
    const ahead = Math.max(0, this.#settingOf(topic).fullAt - now);
    return Math.min(running - this.#running(topic), Math.floor(burst - ahead / intervalMs));
  }

  /** Writes the starts of what was taken. Part of the commit. */
  #start(topic: string, limit: Limit, leased: readonly Row[], at: number): void {
    for (const [id, start] of this.#starts) if (!this.#isHeld(id, start)) this.#starts.delete(id);
    if (leased.length === 0) return;
    for (const { id, lease } of leased) {
      const start = { topic, term: lease!, at };
      this.#starts.set(id, start);
      this.#started.set(this.#nextStart++, start);
    }
    const setting = this.#settingOf(topic);
    const fullAt = Math.max(at, setting.fullAt) + leased.length * limit.intervalMs;
    this.settings.set(topic, { ...setting, fullAt: this.#faults.forgetsStarts === true ? 0 : fullAt });
    this.#expectLimit(topic, limit);
  }

  #expectLimit(topic: string, { running, burst, intervalMs }: Limit): void {
    const had = [...this.rows.values()].filter((row) => row.message.topic === topic && this.goesOn(row.lease));
    if (had.length > running) throw new Violation(`${had.length} messages of ${topic} run, and ${running} may`);
    const starts = [...this.#started.values()].filter((start) => start.topic === topic).map(({ at }) => at);
    for (const [first, from] of starts.entries()) {
      for (const [last, to] of starts.entries()) {
        const most = burst + (to - from) / intervalMs + 1e-6;
        if (last >= first && last - first + 1 > most)
          throw new Violation(`${last - first + 1} of ${topic} started in ${to - from} ms`);
      }
    }
  }

  /** Frees rows that a member has not begun. */
  giveBack(term: number, ids: readonly number[], done: () => void): void {
    const tx = new Transaction();
    this.postgres.run(tx, this.#givingBack(tx, term, ids), done);
  }

  *#givingBack(tx: Transaction, term: number, ids: readonly number[]): Steps<true> {
    for (const id of ids) yield this.postgres.lock(tx, `row ${id}`);
    this.postgres.assignXid(tx);
    this.postgres.commit(tx, () => {
      for (const id of ids) {
        const row = this.rows.get(id);
        if (row?.lease === term) this.rows.set(id, { ...row, lease: undefined });
      }
    });
    this.#world.notify();
    return true;
  }

  // ---- terms ----

  /** Begins a term, and ends the one before. A number is never used again, also not after a failover. */
  openTerm(name: string, group: string | undefined, before: number | undefined): number {
    const term = this.#nextTerm++;
    this.postgres.write(() => {
      if (before !== undefined) this.terms.delete(before);
      this.terms.set(term, { name, group, beatAt: this.#world.schedule.now, isGone: false });
    });
    return term;
  }

  goesOn(term: number | undefined): boolean {
    return term !== undefined && this.terms.get(term)?.isGone === false;
  }

  /** @param done called with whether the term goes on; with undefined if that is not known */
  beat(term: number, done: (goesOn: boolean | undefined) => void): void {
    const tx = new Transaction();
    this.postgres.run(tx, this.#beating(tx, term), done);
  }

  *#beating(tx: Transaction, term: number): Steps<boolean> {
    // As an update of the row, which takes in the member's other transactions do not hold up.
    yield this.postgres.lock(tx, `beat ${term}`);
    const row = this.terms.get(term);
    if (!this.goesOn(term) || row === undefined) return false;
    this.postgres.assignXid(tx);
    this.postgres.commit(tx, () => this.terms.set(term, { ...row, beatAt: this.#world.schedule.now }));
    return true;
  }

  /** Ends the term of another member that is silent. What it has is free with that. */
  endSilent(term: number, done: (isEnded: boolean) => void): void {
    const tx = new Transaction();
    this.postgres.run(tx, this.#endingSilent(tx, term), (isEnded) => done(isEnded === true));
  }

  *#endingSilent(tx: Transaction, term: number): Steps<boolean> {
    const { schedule, counts } = this.#world;
    yield this.postgres.lock(tx, `beat ${term}`);
    const row = this.terms.get(term);
    if (row === undefined || row.isGone) return false;
    if (schedule.now - row.beatAt <= leaseMs && this.#faults.endsLiveTerms !== true) return false;
    this.postgres.assignXid(tx);
    this.postgres.commit(tx, () => {
      if (schedule.now - row.beatAt <= leaseMs) throw new Violation(`term ${term} was ended although it goes on`);
      this.terms.set(term, { ...row, isGone: true });
    });
    counts.add("transition: taken over");
    return true;
  }

  /** Ends a member's own term in good order: what it has not begun is free, and was not tried. */
  close(term: number, rows: readonly number[], done: () => void): void {
    const tx = new Transaction();
    this.postgres.run(tx, this.#closing(tx, term, rows), done);
  }

  *#closing(tx: Transaction, term: number, ids: readonly number[]): Steps<true> {
    for (const id of ids) yield this.postgres.lock(tx, `row ${id}`);
    yield this.postgres.lock(tx, `beat ${term}`);
    this.postgres.assignXid(tx);
    this.postgres.commit(tx, () => {
      for (const id of ids) {
        const row = this.rows.get(id);
        if (row?.lease === term) this.rows.set(id, { ...row, lease: undefined });
      }
      this.terms.delete(term);
    });
    return true;
  }

  #giveUp(row: Row): void {
    if ((this.#tried.get(row.id) ?? 0) < maxAttempts)
      throw new Violation(`message ${nameOf(row)} was given up, though it did not fail ${maxAttempts} times`);
    this.rows.delete(row.id);
    this.#dead.set(nameOf(row), row);
    this.#world.counts.add("transition: given up");
  }

  // ---- take ----

  take(request: TakeRequest, done: (taken: Taken | "ended" | undefined) => void): void {
    const tx = new Transaction();
    this.postgres.run(tx, this.#taking(tx, request), done);
  }

  *#taking(tx: Transaction, request: TakeRequest): Steps<Taken | "ended"> {
    const { random, counts } = this.#world;
    const { term } = request;
    if (!this.goesOn(term)) return "ended";
    const { topics: asked, limited } = this.#asked(request);
    const [topic] = limited;
    const limit = topic === request.limited ? this.#settingOf(topic ?? "").limit : undefined;
    const admitted = limit && (yield* this.#admit(tx, topic!, limit));
    const at = this.#world.schedule.now;
    const most = Math.min(request.most, admitted?.most ?? request.most);
    if (most <= 0) return { rows: [], after: request.after, hasMore: false, limited, waitMs: admitted?.waitMs ?? 0 };
    const places = request.places.filter((place) => asked.includes(place[0]!) || (limit && place[0] === topic));
    const { found, after, hasMore } = this.#look({ ...request, places, most }, limit !== undefined);
    yield this.postgres.sleep(random.delay(1));
    const early = this.#faults.looksBeforeLocks === true ? this.#lanes(found) : undefined;
    if (early !== undefined) yield this.postgres.sleep(random.delay(1));
    const locked = new Set<Row>();
    for (const row of found) if (this.#takesLock(tx, row)) locked.add(row);
    yield this.postgres.sleep(random.delay(1));
    // Behind the locks: of two that take messages of a key, the later one sees what the other has locked or taken.
    const seen = early ?? this.#lanes(found);
    yield this.postgres.sleep(random.delay(1));
    const blocked = new Set<string>();
    for (const [lane, orders] of seen) {
      for (const rows of orders.values()) {
        const [head] = rows;
        if (head!.row.lease === term || locked.has(head!.row)) continue;
        // Of each role a key is taken from its first message on: so its first row says who has it, and is its lock.
        const isFree = !head!.goesOn && (this.#faults.locksNoKeys === true || this.#takesLock(tx, head!.row));
        if (!isFree && this.#faults.sharesKeys !== true) blocked.add(lane);
        if (!head!.goesOn && !isFree) counts.add("transition: another one looks at the key");
      }
    }
    const taken = [...locked].filter((row) => {
      const lane = laneOf(row);
      if (lane === undefined) return true;
      const isBlocked = blocked.has(lane) || this.#waitsBefore(row, seen.get(lane)!.get(orderOf(row)!)!, term, locked);
      if (isBlocked) counts.add("transition: another member has the key, or its first message waits");
      return !isBlocked;
    });
    const spread = taken.filter(({ message, place }) => message.isToAll && place === message.topic);
    const copies = spread.flatMap((row) => this.#copiesOf(tx, row));
    const leased: Row[] = [];
    const over: Row[] = [];
    for (const row of taken) {
      if (spread.includes(row)) continue;
      // One that a member had when it was silent for too long may be the cause.
      const wasTried = row.lease !== undefined && this.terms.get(row.lease)?.isGone === true;
      const next = { ...row, attempts: row.attempts + (wasTried ? 1 : 0), lease: term };
      (next.attempts < maxAttempts ? leased : over).push(next);
      if (wasTried) {
        counts.add("transition: taken from a member that is gone");
        this.#tried.set(row.id, (this.#tried.get(row.id) ?? 0) + 1);
      }
    }
    yield this.postgres.sleep(random.delay(random.chance(0.1) ? 20 : 1));
    this.postgres.assignXid(tx);
    this.postgres.commit(tx, () => {
      for (const { id, lease } of taken)
        if (this.rows.get(id)?.lease !== lease || this.goesOn(lease))
          throw new Violation(`row ${id} was taken from a member that goes on`);
      for (const row of spread) {
        this.rows.delete(row.id);
        const places = copies.filter(({ origin }) => origin === row.id).map(({ place }) => place);
        this.copies.set(row.message.id, places);
      }
      for (const row of [...copies, ...leased]) this.rows.set(row.id, row);
      for (const row of over) this.#giveUp(row);
      this.#expectOneHolder(leased);
      this.#expectOwnPlaces(term, leased);
      if (limit !== undefined && this.goesOn(term)) this.#start(topic!, limit, leased, at);
    });
    if (copies.length > 0) this.#world.notify();
    if (leased.length > 0) counts.add("transition: taken");
    if (limit !== undefined && leased.length > 0) counts.add("transition: started under a limit");
    return { rows: leased, after, hasMore: hasMore || spread.length > 0, limited, waitMs: 0 };
  }

  /** Topics that are neither paused nor limited, and those that are limited, of all that are asked for. */
  #asked({ places }: TakeRequest): { readonly topics: string[]; readonly limited: string[] } {
    const all = [...new Set(places.map((place) => place[0]!))].filter((topic) => !this.#settingOf(topic).isPaused);
    const isLimited = (topic: string) => this.#settingOf(topic).limit !== undefined;
    return { topics: all.filter((topic) => !isLimited(topic)), limited: all.filter(isLimited) };
  }

  #isFree({ lease }: Row): boolean {
    return !this.goesOn(lease) || this.#faults.takesTwice === true;
  }

  /** Rows that nobody has: those behind the last look, those that are due again, and now and then those before. */
  #look({ places, after, looksBehind, most }: TakeRequest, isLimited: boolean) {
    const { now } = this.#world.schedule;
    const newAfter = new Map(after);
    const found: Row[] = [];
    let hasMore = false;
    const rows = [...this.rows.values()].sort((one, other) => one.id - other.id);
    for (const row of rows) {
      if (!places.includes(row.place) && this.#faults.takesOfOthers !== true) continue;
      const last = newAfter.get(row.place) ?? 0;
      const isBehind = row.id <= last;
      // These have an index of their own, by when they are due.
      const isAgain = row.dueAt > 0;
      if (isBehind && !isAgain && !(looksBehind && this.#faults.neverLooksBehind !== true)) continue;
      if (found.length >= most) {
        hasMore = true;
        break;
      }
      if (!isBehind) newAfter.set(row.place, row.id);
      if (row.dueAt > now) continue;
      if (!this.#isFree(row)) continue;
      if (isLimited && !this.#startsAtOnce(row, rows, found)) continue;
      if (isBehind && !isAgain) this.#world.counts.add("transition: found behind");
      found.push(row);
    }
    return { found, after: newAfter, hasMore };
  }

  /** True if the row is the first one of its key, and nobody has another one of it. */
  #startsAtOnce(row: Row, rows: readonly Row[], found: readonly Row[]): boolean {
    const lane = laneOf(row);
    if (lane === undefined) return true;
    const others = rows.filter((other) => other !== row && laneOf(other) === lane);
    return !others.some(
      (other) =>
        this.goesOn(other.lease) || found.includes(other) || (orderOf(other) === orderOf(row) && other.id < row.id),
    );
  }

  /** Locks a row that is as it was seen. */
  #takesLock(tx: Transaction, row: Row): boolean {
    return this.rows.get(row.id) === row && this.postgres.tryLock(tx, `row ${row.id}`);
  }

  /** All rows of the lanes of some, as they are now: by lane and order, in the order of their numbers. */
  #lanes(found: readonly Row[]): Map<string, Map<string, Seen[]>> {
    const lanes = new Map<string, Map<string, Seen[]>>();
    for (const row of found) if (laneOf(row) !== undefined) lanes.set(laneOf(row)!, new Map());
    for (const row of [...this.rows.values()].sort((one, other) => one.id - other.id)) {
      const orders = lanes.get(laneOf(row) ?? "");
      if (orders === undefined) continue;
      const order = orderOf(row)!;
      orders.set(order, [...(orders.get(order) ?? []), { row, goesOn: this.goesOn(row.lease) }]);
    }
    return lanes;
  }

  /** True if a message before this one, of its order, has not ended and is not taken with it. */
  #waitsBefore(row: Row, order: readonly Seen[], term: number, locked: ReadonlySet<Row>): boolean {
    const { now } = this.#world.schedule;
    return order.some(({ row: other }) => {
      if (other.id >= row.id || other.lease === term || locked.has(other)) return false;
      return !(other.dueAt > now && this.#faults.passesParked === true);
    });
  }

  #copiesOf(tx: Transaction, { id, message }: Row): Row[] {
    const listed = [...this.terms.values()].map(({ name, group }) =>
      group === undefined ? `listener ${name}` : `group ${group}`,
    );
    const recipients = [...new Set(listed)].sort();
    if (this.#faults.missesListener === true) recipients.pop();
    this.#expectCopies(message, recipients);
    return recipients.map((to) => ({
      id: Number(this.postgres.takeId(tx)),
      place: `${message.topic} ${to}`,
      message,
      origin: id,
      dueAt: 0,
      attempts: 0,
      lease: undefined,
    }));
  }

  // ---- the end of a message ----

  /** The handler's transaction: its effect, and the end of the row if it is still there, whoever has it now. */
  done(row: Row, slowMs: number, ended: (isDone: boolean | undefined) => void): void {
    const tx = new Transaction();
    this.postgres.run(tx, this.#finishing(tx, row, slowMs), ended);
  }

  *#finishing(tx: Transaction, row: Row, slowMs: number): Steps<boolean> {
    const { random, counts } = this.#world;
    yield this.postgres.sleep(slowMs);
    yield this.postgres.lock(tx, `row ${row.id}`);
    if (!this.rows.has(row.id)) counts.add("transition: the row is gone");
    if (!this.rows.has(row.id) && this.#faults.ignoresCount !== true) return false;
    // COMMIT is a message of its own: what was written before holds the row.
    if (random.chance(0.1)) yield this.postgres.sleep(random.delay(20));
    this.postgres.assignXid(tx);
    this.postgres.commit(tx, () => {
      this.rows.delete(row.id);
      this.#expectEffect(row);
      this.effects.set(nameOf(row), row);
      const order = orderOf(row);
      if (order !== undefined) this.#lastOf.set(order, row);
    });
    return true;
  }

  /**
   * The handler failed, or wants the message later: the row is due later, or becomes a dead letter.
   *
   * @param counts the handler failed
   */
  fail(term: number, id: number, delayMs: number, counts: boolean, ended: (end: Failed | undefined) => void): void {
    const tx = new Transaction();
    this.postgres.run(tx, this.#failing(tx, term, id, delayMs, counts), ended);
  }

  *#failing(tx: Transaction, term: number, id: number, delayMs: number, counts: boolean): Steps<Failed> {
    yield this.postgres.lock(tx, `row ${id}`);
    const row = this.rows.get(id);
    if (row === undefined || row.lease !== term) return "gone";
    if (counts) this.#tried.set(id, (this.#tried.get(id) ?? 0) + 1);
    const attempts = row.attempts + (counts || this.#faults.countsDelays === true ? 1 : 0);
    const isOver = attempts >= maxAttempts;
    const order = orderOf(row);
    // What the member has of the role and key waits behind this one, for whoever takes this one again.
    const rest = [...this.rows.values()].filter(
      (other) => order !== undefined && orderOf(other) === order && other.lease === term && other.id > id,
    );
    for (const other of rest) yield this.postgres.lock(tx, `row ${other.id}`);
    const dueAt = this.#world.schedule.now + delayMs;
    this.postgres.assignXid(tx);
    this.postgres.commit(tx, () => {
      if (isOver) {
        this.#giveUp(row);
        return;
      }
      this.rows.set(id, { ...row, attempts, dueAt, lease: undefined });
      if (this.#faults.keepsRestOfKey === true) return;
      // They are found with it.
      for (const other of rest) this.rows.set(other.id, { ...this.rows.get(other.id)!, dueAt, lease: undefined });
    });
    return isOver ? "given up" : "put off";
  }

  // ---- what must hold ----

  #expectEffect(row: Row): void {
    const name = nameOf(row);
    if (this.effects.has(name)) throw new Violation(`message ${name} had its effects twice`);
    const last = this.#lastOf.get(orderOf(row) ?? "");
    if (last !== undefined && last.origin > row.origin)
      throw new Violation(`message ${name} had its effects behind ${nameOf(last)}`);
  }

  #expectOneHolder(leased: readonly Row[]): void {
    for (const row of leased) {
      const lane = laneOf(row);
      // What a member takes that was ended meanwhile is free at once.
      if (lane === undefined || !this.goesOn(row.lease)) continue;
      for (const other of this.rows.values())
        if (laneOf(other) === lane && other.lease !== row.lease && this.goesOn(other.lease))
          throw new Violation(`${lane} has two members`);
    }
  }

  #expectOwnPlaces(of: number, leased: readonly Row[]): void {
    const term = this.terms.get(of);
    if (term === undefined) return;
    const { name, group } = term;
    for (const { id, place, message } of leased)
      if (![message.topic, `${message.topic} listener ${name}`, `${message.topic} group ${group}`].includes(place))
        throw new Violation(`row ${id} of "${place}" was taken by ${name} of ${group ?? "no group"}`);
  }

  #expectCopies({ id }: Enqueued, recipients: readonly string[]): void {
    for (const { name, group } of this.terms.values()) {
      const recipient = group === undefined ? `listener ${name}` : `group ${group}`;
      if (!recipients.includes(recipient)) throw new Violation(`message ${id} has no copy for ${recipient}`);
    }
  }
}

function nameOf({ message, place }: Row): string {
  return place === message.topic ? `${message.id}` : `${message.id} for ${place}`;
}

function keyOf({ topic, role, key }: Enqueued): string | undefined {
  return key && `${role} ${topic} ${key}`;
}

/** One process at a time has the messages with the same one; undefined: they have no order. */
export function laneOf(row: Row | undefined): string | undefined {
  return row?.message.key && `${row.place}/${row.message.key}`;
}

/** Messages of a lane with the same one are handled in the order of their numbers. */
export function orderOf(row: Row | undefined): string | undefined {
  return laneOf(row) && `${laneOf(row)}/${row!.message.role}`;
}
