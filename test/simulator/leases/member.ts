/**
 * A process that handles what is enqueued. On one session, one after the other, it takes rows, puts off those that failed and says
 * that it goes on; so it knows what it has. The handlers' transactions, which end rows, have sessions of their own. When an answer
 * is lost or a connection is new, it begins a new term.
 */
import { SimulatedProcess } from "../process.js";
import { Violation } from "../records.js";
import { type Failed, laneOf, leaseMs, orderOf, type Row, type Taken, topics } from "./store.js";
import type { LeaseWorld } from "./world.js";

const pollMs = 100;
const beatMs = 80;
/** Pause before a message is tried again. */
const retryMs = 60;

interface Entry {
  readonly row: Row;
  isRunning: boolean;
}

/** Statement on the member's session. Calls `answer` with undefined if its outcome is not known. */
type Statement<Result> = (answer: (result: Result | undefined) => void) => void;

export class Member extends SimulatedProcess {
  readonly #world: LeaseWorld;
  readonly name: string;
  readonly #group: string | undefined;
  readonly #concurrency: number;
  #term: number | undefined;
  /** Term that was lost, until there is a new one. */
  #lostTerm: number | undefined;
  /** Of Postgres, when the term began: with another one, its connections are new. */
  #starts = 0;
  #isStopping = false;
  #wants = false;
  /** Topics that the member knows to be paused. */
  #paused: readonly string[] = [];
  /** Topics that the member knows to have a limit, and when it may ask for each again. */
  readonly #limited = new Map<string, number>();
  #isTaking = false;
  #looksBehind = true;
  #after: ReadonlyMap<string, number> = new Map();
  /** Rows that the member has, in the order of their numbers. */
  readonly #rows = new Map<number, Entry>();
  readonly #statements: (() => void)[] = [];
  #isBusy = false;

  constructor(world: LeaseWorld, name: string, group: string | undefined) {
    super(world);
    this.#world = world;
    this.name = name;
    this.#group = group;
    this.#concurrency = world.random.between(1, 3);
    this.after(world.random.delay(5), () => this.#openTerm());
  }

  /** Ends in good order. */
  stop(): void {
    this.deliver(() => {
      this.#isStopping = true;
      this.#endWhenIdle();
    });
  }

  /** The settings of a topic have changed. */
  settingsChanged(): void {
    this.deliver(() => this.#term !== undefined && this.#askSettings(this.#term));
  }

  /** Something was enqueued, or is free. */
  notified(): void {
    this.deliver(() => {
      this.#wants = true;
      this.#take();
    });
  }

  get #places(): string[] {
    const to = [` listener ${this.name}`, ...(this.#group === undefined ? [] : [` group ${this.#group}`])];
    return topics.flatMap((topic) => [topic, ...to.map((each) => `${topic}${each}`)]);
  }

  // ---- terms ----

  #openTerm(): void {
    const { store, mutant } = this.#world;
    if (!store.postgres.isAvailable) {
      this.after(20, () => this.#openTerm());
      return;
    }
    this.#starts = store.postgres.starts;
    const term = store.openTerm(this.name, this.#group, mutant.keepsTerm === true ? undefined : this.#lostTerm);
    this.#term = term;
    this.#after = new Map();
    this.#looksBehind = true;
    this.#askSettings(term);
    this.#beat(term);
    this.#poll(term);
  }

  /** What it has may be another's now. Its handlers go on, and find that out. */
  #lose(why: string): void {
    this.#world.counts.add(`new term: ${why}`);
    this.#lostTerm = this.#term;
    this.#term = undefined;
    this.#rows.clear();
    this.#statements.length = 0;
    this.#isBusy = false;
    this.#isTaking = false;
    this.#limited.clear();
    this.#paused = [];
    if (!this.#isStopping) this.#openTerm();
  }

  /** True if the handlers' next transactions begin on connections that the term does not know. */
  #isOnNewConnection(): boolean {
    if (this.#world.store.postgres.starts === this.#starts || this.#world.mutant.keepsTerm === true) return false;
    this.#lose("the connection is new");
    return true;
  }

  /** Runs a statement of the term, once those before it are answered. */
  #enter<Result>(term: number, statement: Statement<Result>, answered: (result: Result) => void): void {
    const { random, counts, mutant } = this.#world;
    const run = (): void => {
      const isAnswerLost = random.chance(this.#world.faultRate);
      statement((result) =>
        this.after(random.delay(1), () => {
          if (this.#term !== term) return;
          if (result === undefined || isAnswerLost) {
            counts.add("fault: answer lost");
            if (mutant.keepsTerm !== true) {
              this.#lose("an answer was lost");
              return;
            }
          } else answered(result);
          if (this.#term === term) this.#next();
        }),
      );
    };
    this.#statements.push(run);
    if (!this.#isBusy || mutant.entersSideBySide === true) this.#next();
  }

  #next(): void {
    const next = this.#statements.shift();
    this.#isBusy = next !== undefined;
    next?.();
  }

  #beat(term: number): void {
    if (this.#term !== term) return;
    const { store } = this.#world;
    this.after(beatMs, () => this.#beat(term));
    if (!store.postgres.isAvailable || this.#isOnNewConnection()) return;
    this.#enter<boolean>(
      term,
      (answer) => store.beat(term, answer),
      (goesOn) => goesOn === false && this.#lose("it was silent"),
    );
    this.#askSettings(term);
  }

  /** Statements are carried out in their order: what was taken before is known when this is answered. */
  #askSettings(term: number): void {
    const { store, random } = this.#world;
    if (store.settings.size === 0 || !store.postgres.isAvailable || this.#isOnNewConnection()) return;
    this.#enter<readonly string[]>(
      term,
      (answer) =>
        this.after(random.delay(1), () =>
          answer([...store.settings].flatMap(([topic, { isPaused }]) => (isPaused ? [topic] : []))),
        ),
      (paused) => this.#pause(term, paused),
    );
  }

  #pause(term: number, paused: readonly string[]): void {
    if (paused.join() === this.#paused.join()) return;
    this.#paused = paused;
    this.#giveBackPaused(term);
    // What was given back is behind, and what has become free was not looked at.
    this.#looksBehind = true;
    this.#wants = true;
    this.#run();
    this.#take();
  }

  #giveBackPaused(term: number): void {
    const { store, counts, mutant } = this.#world;
    const ids = [...this.#rows.values()].flatMap(({ row, isRunning }) =>
      !isRunning && this.#isPaused(row) ? [row.id] : [],
    );
    if (ids.length === 0 || mutant.keepsPaused === true) return;
    counts.add("transition: given back to a paused topic");
    for (const id of ids) this.#rows.delete(id);
    this.#enter<true>(
      term,
      (answer) => store.giveBack(term, ids, () => answer(true)),
      () => undefined,
    );
  }

  #isPaused({ message }: Row): boolean {
    return this.#paused.includes(message.topic);
  }

  #poll(term: number): void {
    if (this.#term !== term) return;
    const { store, schedule, mutant } = this.#world;
    for (const [other, { beatAt, isGone }] of store.terms) {
      const isSilent = schedule.now - beatAt > leaseMs || mutant.store?.endsLiveTerms === true;
      if (other !== term && isSilent && !isGone) store.endSilent(other, (isEnded) => isEnded && this.#world.notify());
    }
    this.#looksBehind = true;
    this.#wants = true;
    this.#take();
    this.after(pollMs, () => this.#poll(term));
  }

  #endWhenIdle(): void {
    const { store, counts } = this.#world;
    const isIdle = !this.#isBusy && ![...this.#rows.values()].some(({ isRunning }) => isRunning);
    if (!isIdle) {
      this.after(5, () => this.#endWhenIdle());
      return;
    }
    if (this.#term !== undefined) store.close(this.#term, [...this.#rows.keys()], () => this.#world.notify());
    counts.add("transition: stopped");
    this.kill();
  }

  // ---- take ----

  #take(): void {
    const { store, random, schedule } = this.#world;
    const term = this.#term;
    if (term === undefined || this.#isTaking || this.#isStopping) return;
    // Of a topic with a limit no more than begins at once.
    const [limited] = [...this.#limited].find(([, at]) => at <= schedule.now) ?? [];
    const most = this.#concurrency * (limited === undefined ? 2 : 1) - this.#rows.size;
    if (!(this.#wants || limited !== undefined) || most <= 0) return;
    if (this.#isOnNewConnection()) return;
    this.#isTaking = true;
    const looksBehind = this.#looksBehind || limited !== undefined;
    if (limited === undefined) {
      this.#wants = false;
      this.#looksBehind = false;
    }
    const places = this.#places.filter(
      (place) =>
        !this.#paused.includes(place[0]!) &&
        (limited === undefined ? !this.#limited.has(place[0]!) : place[0] === limited),
    );
    this.#enter<Taken | "ended">(
      term,
      (answer) => store.take({ term, limited, places, after: this.#after, looksBehind, most }, answer),
      (result) => {
        this.#isTaking = false;
        if (result === "ended") {
          this.#lose("it was silent");
          return;
        }
        const { rows, after, hasMore, waitMs } = result;
        this.#after = after;
        for (const topic of result.limited) this.#limited.set(topic, schedule.now + (topic === limited ? waitMs : 0));
        if (limited !== undefined && !result.limited.includes(limited)) this.#limited.delete(limited);
        else if (limited !== undefined && rows.length === 0 && waitMs === 0)
          this.#limited.set(limited, schedule.now + pollMs);
        for (const row of rows) this.#rows.set(row.id, { row, isRunning: false });
        // The pause has ended since, and the member does not know yet.
        this.#giveBackPaused(term);
        // What committed late is behind.
        if (rows.length === 0 && !looksBehind) this.#looksBehind = true;
        if (hasMore || this.#looksBehind) this.#wants = true;
        this.#run();
        if (this.#wants) this.after(random.delay(2), () => this.#take());
      },
    );
  }

  // ---- handlers ----

  #run(): void {
    const { random } = this.#world;
    const term = this.#term;
    if (term === undefined || this.#isStopping) return;
    const starts = this.#starts;
    const own = [...this.#rows.values()].sort((one, other) => one.row.id - other.row.id);
    const busy = new Set<string>();
    let running = own.filter(({ isRunning }) => isRunning).length;
    for (const { row, isRunning } of own) if (isRunning) busy.add(laneOf(row) ?? "");
    for (const each of own) {
      if (running >= this.#concurrency) return;
      const lane = laneOf(each.row);
      if (each.isRunning || (lane !== undefined && busy.has(lane))) continue;
      if (this.#isPaused(each.row)) throw new Violation(`row ${each.row.id} begins, although its topic is paused`);
      if (lane !== undefined) busy.add(lane);
      running += 1;
      each.isRunning = true;
      this.after(random.delay(random.pick([2, 20])), () => this.#end(term, each.row, starts));
    }
  }

  /** @param isAgain the outcome of an earlier transaction for the row is not known */
  #end(term: number, row: Row, starts: number, isAgain = false): void {
    const { store, random, mutant, counts } = this.#world;
    // A server that has lost commits may have an earlier message of the key again.
    if (store.postgres.starts !== starts && mutant.keepsTerm !== true) {
      if (this.#term === term) this.#isOnNewConnection();
      return;
    }
    if (this.#term === term && random.chance(0.1)) {
      this.#putOff(term, row);
      return;
    }
    store.done(row, random.delay(1), (isDone) =>
      this.after(random.delay(1), () => {
        if (this.#term !== term) return;
        if (isDone === undefined) {
          counts.add("transition: outcome unknown");
          this.after(retryMs, () => this.#end(term, row, starts, true));
          return;
        }
        // Another member has it, and with it what comes behind it. Unless it was done when the outcome was not known.
        if (!isDone && !isAgain && mutant.keepsLane !== true) {
          this.#lose("a row is another's");
          return;
        }
        this.#ended([row.id]);
      }),
    );
  }

  #putOff(term: number, row: Row): void {
    const { store, random, mutant, counts } = this.#world;
    const order = orderOf(row);
    const share = random.next();
    const isFailed = share > 0.2;
    if (!isFailed) counts.add("transition: wanted later");
    this.#enter<Failed>(
      term,
      (answer) => store.fail(term, row.id, retryMs * share * 4, isFailed, answer),
      (result) => {
        if (result === "gone" && mutant.keepsLane !== true) {
          this.#lose("a row is another's");
          return;
        }
        // The rest of its role and key is not this member's any more.
        const isRest = (each: Row) =>
          result === "put off" && order !== undefined && orderOf(each) === order && each.id > row.id;
        const rest =
          mutant.store?.keepsRestOfKey === true ? [] : [...this.#rows.values()].filter((each) => isRest(each.row));
        this.#ended([row.id, ...rest.map((each) => each.row.id)]);
      },
    );
  }

  #ended(ids: readonly number[]): void {
    for (const id of ids) this.#rows.delete(id);
    this.#wants = true;
    this.#run();
    this.#take();
  }
}
