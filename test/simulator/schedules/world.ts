/**
 * Run of schedules: users who make, change and end them, processes that run them and all want to, faults, and the rules
 * that must hold. The clocks of time zones change meanwhile. Everything follows from the seed.
 */
import { lateMs, planOccurrences } from "../../../src/outbox/occurrences.js";
import { retryMs, SchedulePace } from "../../../src/outbox/schedules.js";
import { Random } from "../random.js";
import { Counts, Violation } from "../records.js";
import { Schedule } from "../schedule.js";
import "./croner.js";
import type { ScheduleMutant } from "./mutants.js";
import { WallClock } from "./oracle.js";
import { expectedOf, type Move, type Planned, type Row, ScheduleStore, timesOf } from "./store.js";

const minuteMs = 60_000;

const faultKinds = ["kill", "stall", "outage", "failover", "lock", "change", "policy", "remove"] as const;
type Fault = (typeof faultKinds)[number];

/** Faults end then, and users change nothing any more. */
const faultsUntilMs = 9 * minuteMs;
/** A run ends then: what is due by then is on time. */
const endMs = 12 * minuteMs;
/** Limit of an occurrence's delay while nothing is wrong. */
const promptMs = 2_000;
const pageLimit = 3;
const maxSteps = 100_000;

/** Changes of clocks, and a time without one. The minute of the change, and the expressions that are hit by it. */
const occasions = [
  { timezone: "Europe/Berlin", at: "2026-03-29T01:00Z", crons: ["30 2 * * *", "*/2 2-3 * * *", "0,1 2,3 * * *"] },
  {
    timezone: "Europe/Berlin",
    at: "2026-10-25T01:00Z",
    crons: ["58 2 * * *", "1 2 * * *", "*/2 * * * *", "2,58 2 * * *"],
  },
  { timezone: "America/New_York", at: "2026-03-08T07:00Z", crons: ["15,45 2 * * *", "1 3 * * *", "*/3 * * * *"] },
  { timezone: "America/New_York", at: "2026-11-01T06:00Z", crons: ["59 1 * * *", "1 1 * * *", "* 1 * * *"] },
  { timezone: "Australia/Lord_Howe", at: "2026-10-03T15:30Z", crons: ["10 2 * * *", "*/2 * * * *", "29,31 2 * * *"] },
  { timezone: "Australia/Lord_Howe", at: "2026-04-04T15:00Z", crons: ["58 1 * * *", "31 1 * * *", "*/2 1-2 * * *"] },
  { timezone: "UTC", at: "2026-02-28T23:58Z", crons: ["0 0 * * *", "59 23 28 * *", "0 0 1 * 1"] },
] as const;

/** At all times. */
const frequent = ["*/20 * * * * *", "* * * * *", "5,35 * * * * *", "*/4 * * * *"] as const;

const names = ["a", "b", "c"] as const;

/** A process that runs schedules. */
class Runner {
  readonly #world: ScheduleWorld;
  readonly #clockOffMs: number;
  #pace = new SchedulePace(undefined);
  /** Which session it has; what an earlier one was asked does not count. */
  #session = 0;
  isGone = false;
  stallUntil = 0;

  constructor(world: ScheduleWorld) {
    this.#world = world;
    this.#clockOffMs = world.random.pick([0, 0, -30_000, 45_000]);
    this.pump();
  }

  changed(): void {
    if (this.#world.mutant.ignoresChanges === true) return;
    this.#pace.changed();
    this.pump();
  }

  /** The session is lost; there is another one soon. */
  sessionLost(): void {
    const session = ++this.#session;
    this.#pace = new SchedulePace(undefined);
    this.#pace.startPoll();
    this.#after(this.#world.random.delay(200), session, () => {
      this.#pace.endPoll(this.#world.schedule.now, 0);
      this.pump();
    });
  }

  pump(): void {
    const { schedule } = this.#world;
    if (this.isGone || this.#pace.at === Number.POSITIVE_INFINITY) return;
    if (this.#pace.at > schedule.now) {
      const at = this.#pace.at;
      this.#after(at - schedule.now, this.#session, () => {
        if (this.#pace.at <= schedule.now) this.pump();
      });
      return;
    }
    this.#pace.startPoll();
    this.#call(() => this.#look());
  }

  /** Goes on when a call has reached Postgres, unless it is lost. */
  #call(run: () => void): void {
    const { random, counts } = this.#world;
    if (random.chance(this.#world.faultRate)) {
      counts.add("fault: call lost before its commit");
      this.sessionLost();
    } else this.#after(random.delay(5), this.#session, run);
  }

  /** Goes on with the answer, unless that is lost. */
  #answered(run: () => void): void {
    const { random, counts } = this.#world;
    if (random.chance(this.#world.faultRate)) {
      counts.add("fault: answer lost");
      this.sessionLost();
    } else this.#after(random.delay(5), this.#session, run);
  }

  #look(): void {
    const { store, random, mutant } = this.#world;
    const { rows, asOf, dueInMs } = store.due(random.between(1, 5));
    this.#answered(() => {
      const { schedule } = this.#world;
      const now = mutant.ownClock === true ? this.#world.clock + this.#clockOffMs : asOf;
      const plan = mutant.plan ?? planOccurrences;
      const planned = rows.map((row): Planned => {
        return { row, asOf, limit: pageLimit, plan: plan(timesOf(row), new Date(now), pageLimit) };
      });
      const inMs = planned.map((one) => (one.plan.next?.getTime() ?? Number.POSITIVE_INFINITY) - asOf);
      const next = Math.max(0, Math.min(dueInMs, ...inMs));
      if (planned.length === 0) {
        this.#pace.endPoll(schedule.now, next);
        this.pump();
        return;
      }
      this.#call(() => {
        if (mutant.storesApart === true) {
          store.enqueueOnly(planned);
          this.#answered(() => this.#call(() => this.#commit(planned, next, () => store.moveOnly(planned))));
        } else this.#commit(planned, next, () => store.run(planned));
      });
    });
  }

  #commit(planned: readonly Planned[], next: number, run: () => unknown): void {
    const { counts } = this.#world;
    const ran = run();
    const isBehind = typeof ran === "number" && ran < planned.length;
    if (isBehind) counts.add("transition: had by another runner");
    this.#answered(() => {
      this.#pace.endPoll(this.#world.schedule.now, isBehind ? Math.min(next, retryMs) : next);
      this.pump();
    });
  }

  /** Later, if this session is still there, and not while the process stands still. */
  #after(delayMs: number, session: number, run: () => void): void {
    const { schedule } = this.#world;
    schedule.after(delayMs, () => {
      if (this.isGone || session !== this.#session) return;
      if (this.stallUntil > schedule.now) this.#after(this.stallUntil - schedule.now, session, run);
      else run();
    });
  }
}

export class ScheduleWorld {
  readonly random: Random;
  readonly schedule = new Schedule();
  readonly counts = new Counts();
  readonly mutant: ScheduleMutant;
  readonly store: ScheduleStore;
  faultRate: number;
  readonly #begin: number;
  readonly #timezone: string;
  readonly #crons: readonly string[];
  readonly #kinds: readonly Fault[];
  #runners: Runner[] = [];

  constructor(seed: number, mutant: ScheduleMutant) {
    this.mutant = mutant;
    this.random = new Random(seed);
    const { random } = this;
    const occasion = random.pick(occasions);
    this.#timezone = occasion.timezone;
    this.#crons = occasion.crons;
    // The change comes early or late in the run. In whole seconds, so that the beginning of one is nothing special.
    const ahead = random.between(1, 600) * 1_000 + random.between(0, 999);
    this.#begin = Date.parse(occasion.at) - ahead;
    this.store = new ScheduleStore(() => this.clock, mutant.store ?? {});
    this.store.onChange = () => {
      for (const runner of this.#runners) this.schedule.after(random.delay(5), () => runner.isGone || runner.changed());
    };
    const isCalm = random.chance(0.2);
    this.#kinds = isCalm ? [] : faultKinds.filter(() => random.chance(0.5));
    this.faultRate = isCalm ? 0 : random.pick([0, 0.02, 0.15]);
  }

  /** The time, by the clock of Postgres. */
  get clock(): number {
    return this.#begin + this.schedule.now;
  }

  run(): void {
    const { random, schedule } = this;
    // Without a schedule, nobody looks until there is one.
    const madeAt = random.chance(0.3) ? random.between(1, 20_000) : 0;
    for (const name of names) schedule.after(madeAt, () => this.#change(name));
    for (let count = random.between(1, 4); count > 0; count--) this.#start();
    for (const kind of this.#kinds) {
      for (let times = random.between(1, 3); times > 0; times--) {
        schedule.after(random.next() * faultsUntilMs, () => this.#inject(kind));
      }
    }
    this.#steps(faultsUntilMs);
    schedule.now = faultsUntilMs;
    this.faultRate = 0;
    this.store.locked.clear();
    for (const runner of this.#runners) runner.stallUntil = 0;
    if (this.#runners.length === 0) this.#start();
    // Sessions are lost no more: what one of them was told before counts.
    this.#steps(endMs);
    schedule.now = endMs;
    this.#check();
  }

  #steps(until: number): void {
    for (let steps = 0; this.schedule.step(until); steps++) {
      if (steps > maxSteps) throw new Violation(`went in circles: ${maxSteps} steps`);
    }
  }

  #start(): void {
    this.#runners.push(new Runner(this));
  }

  #inject(kind: Fault): void {
    const { random, schedule, store } = this;
    this.counts.add(`fault: ${kind}`);
    const name = random.pick(names);
    const lengthMs = Math.min(random.between(1, 180) * 1_000, faultsUntilMs - schedule.now);
    switch (kind) {
      case "kill":
        this.#kill(this.#runners.slice(0, 1));
        schedule.after(random.delay(2_000), () => this.#start());
        return;
      case "stall":
        for (const runner of this.#runners.slice(0, 1)) runner.stallUntil = schedule.now + lengthMs;
        return;
      case "outage":
        this.#kill(this.#runners);
        schedule.after(lengthMs, () => this.#start());
        // While those that were missed are planned.
        if (random.chance(0.5)) schedule.after(lengthMs + random.delay(15), () => this.#changePolicy(name));
        return;
      case "failover":
        store.failover(random.between(0, 3_000));
        for (const runner of this.#runners) runner.sessionLost();
        return;
      case "lock":
        store.locked.add(name);
        schedule.after(lengthMs, () => store.locked.delete(name));
        return;
      case "change":
        this.#change(name);
        return;
      case "policy":
        this.#changePolicy(name);
        return;
      case "remove":
        store.unschedule(name);
        schedule.after(random.delay(500), () => this.#change(name));
    }
  }

  #kill(runners: readonly Runner[]): void {
    for (const runner of runners) runner.isGone = true;
    this.#runners = this.#runners.filter(({ isGone }) => !isGone);
  }

  #change(name: string): void {
    const { random } = this;
    const cron = random.pick(random.chance(0.6) ? this.#crons : frequent);
    const timezone = random.chance(0.8) ? this.#timezone : "UTC";
    this.store.schedule({ name, cron, timezone, missed: random.pick(["one", "all", "none"]) });
  }

  #changePolicy(name: string): void {
    const row = this.store.rows.get(name);
    if (row !== undefined) this.store.schedule({ ...row, missed: this.random.pick(["one", "all", "none"]) });
  }

  // ---- the rules ----

  #check(): void {
    const seen = new Set<string>();
    for (const { name, time } of this.store.outbox) {
      const key = `${name} at ${shown(time)}`;
      if (seen.has(key)) throw new Violation(`${key} was enqueued twice`);
      seen.add(key);
    }
    const moved = new Set<string>();
    for (const move of this.store.moves) {
      this.#checkMove(move);
      for (const time of move.times) moved.add(`${move.from.name} at ${shown(time)}`);
    }
    const stray = [...seen].find((key) => !moved.has(key));
    if (stray !== undefined) throw new Violation(`${stray} was enqueued, and the schedule did not go on`);
    for (const row of this.store.rows.values()) this.#checkIsCurrent(row);
  }

  #checkMove({ from, upto, asOf, times, limit }: Move): void {
    const { name, cron, missed, since } = from;
    const due = this.#occurrences(from).filter((time) => time > since && time <= asOf);
    const expected = expectedOf(due, missed, asOf, limit);
    const what = `"${cron}" (${name}, ${from.timezone}, ${missed}) from ${shown(since)} as of ${shown(asOf)}`;
    if (times.join() !== expected.join())
      throw new Violation(`${what} has ${times.map(shown)}, and should have ${expected.map(shown)}`);
    const passed = due.find((time) => time > (times.at(-1) ?? since) && time <= upto && asOf - time <= lateMs);
    const beyond = this.#occurrences(from).find((time) => time > asOf && time <= upto);
    if (passed !== undefined || beyond !== undefined)
      throw new Violation(`${what} has passed over ${shown(passed ?? beyond!)}`);
    const late = due.filter((time) => asOf - time > lateMs);
    if (late.length > 0) this.counts.add(`transition: missed, ${missed}`);
    if (due.length > late.length) this.counts.add("transition: enqueued on time");
    if (expected.length === limit && due.length > limit) this.counts.add("transition: more than a page");
    if (times.some((time) => this.#isOdd(from, time, -1))) this.counts.add("transition: clock left a time out");
    if (times.some((time) => this.#isOdd(from, time, 1))) this.counts.add("transition: clock showed a time twice");
  }

  /** Nothing was wrong at the end: what was due by then is enqueued. */
  #checkIsCurrent(row: Row): void {
    const until = this.clock - promptMs;
    const open = this.#occurrences(row).find((time) => time > row.since && time <= until);
    if (open !== undefined) throw new Violation(`${row.name} ("${row.cron}") at ${shown(open)} was never enqueued`);
  }

  /** Whether the clock of a schedule was changed within the hour before or behind an occurrence. */
  #isOdd({ timezone }: Row, time: number, sign: number): boolean {
    if (timezone === "UTC") return false;
    const hour = (at: number): number => Number(hoursOf(timezone).format(at));
    const steps = (hour(time) - hour(time - 60 * minuteMs) + 24) % 24;
    return sign < 0 ? steps === 2 : steps === 0;
  }

  #occurrences({ cron, timezone }: Row): readonly number[] {
    return occurrencesAround(timezone, Math.floor(this.#begin / (15 * minuteMs)) * 15 * minuteMs, cron);
  }
}

const clocks = new Map<string, WallClock>();
const known = new Map<string, readonly number[]>();

/** Occurrences of an expression in the hour from a time on, cached since they are read again and again. */
function occurrencesAround(timezone: string, from: number, cron: string): readonly number[] {
  const place = `${timezone} ${from}`;
  const key = `${place} ${cron}`;
  let found = known.get(key);
  if (found === undefined) {
    const clock = clocks.get(place) ?? new WallClock(timezone, from, from + 60 * minuteMs);
    clocks.set(place, clock);
    found = clock.occurrencesOf(cron);
    known.set(key, found);
  }
  return found;
}

const hourFormats = new Map<string, Intl.DateTimeFormat>();

function hoursOf(timezone: string): Intl.DateTimeFormat {
  const known = hourFormats.get(timezone);
  const format = known ?? new Intl.DateTimeFormat("en-US", { timeZone: timezone, hour: "numeric", hourCycle: "h23" });
  hourFormats.set(timezone, format);
  return format;
}

function shown(time: number): string {
  return new Date(time).toISOString();
}
