/**
 * Run of groups: applications that enqueue, the relay, members and other listeners that come, claim, handle, take over
 * and go, faults, and the rules that must hold. Everything follows from the seed.
 */
import type { ListenerLimits } from "../../../src/channel/index.js";
import { Violation } from "../records.js";
import { SimulatedWorld } from "../world.js";
import { Member } from "./member.js";
import type { GroupMutant } from "./mutants.js";
import { type Enqueued, GroupStore, groups, type Row, topics } from "./store.js";

const names = ["m1", "m2", "m3"] as const;
const faultKinds = ["kill", "stall", "stop", "force", "delete", "twin"] as const;
type Fault = (typeof faultKinds)[number];

const faultsUntilMs = 3_000;
const settleWithinMs = 60_000;
const maxSteps = 200_000;
/** A listener is away for so long before another one takes over. */
const absenceMs = 200;

export class GroupWorld extends SimulatedWorld {
  readonly mutant: GroupMutant;
  readonly store: GroupStore;
  readonly limits: ListenerLimits = {
    limitOf: () => undefined,
    creditBytes: 1_000,
    maxCreditGrowth: 4,
    busyAfterMs: 1_000,
    retryOf: () => ({ attempts: Number.POSITIVE_INFINITY, delayMs: () => 20 * this.random.next() }),
    shortBacklogRows: 10,
    refillBelow: 4,
    refillBelowBytes: 1_000,
    maxAhead: 6,
    messageOverheadBytes: 10,
    parkDelayMs: Number.POSITIVE_INFINITY,
    markEveryMs: 500,
    maxParked: 0,
    maxParkedBytes: 0,
    unordered: true,
    careful: false,
  };
  faultRate: number;
  /** Share of the starting listeners that are members of a group. */
  readonly #memberRate: number;
  /** The newest process of each name. */
  readonly #members = new Map<string, Member>();
  readonly #goneSince = new Map<string, number>();
  readonly #enqueued: Enqueued[] = [];
  /** So many of the first ones are handled or deleted. */
  #done = 0;
  /** Who has a copy of a message for all: known when it is handed over. */
  readonly #copies = new Map<number, readonly string[]>();
  /** Effects of copies and other messages, by {@link nameOf}. */
  readonly #effects = new Set<string>();
  readonly #deleted = new Set<string>();
  /** Last message of each key that had an effect. */
  readonly #lastOf = new Map<string, number>();
  readonly #kinds: readonly Fault[];

  constructor(seed: number, mutant: GroupMutant = {}) {
    super(seed);
    this.mutant = mutant;
    this.store = new GroupStore(this, mutant.store ?? {});
    const isCalm = this.random.chance(0.1);
    this.#kinds = faultKinds.filter(() => !isCalm && this.random.chance(0.4));
    this.faultRate = isCalm ? 0 : this.random.pick([0, 0.02, 0.2]);
    this.#memberRate = this.random.pick([0.3, 0.7]);
  }

  run(): void {
    const { random, schedule } = this;
    for (const name of names) if (random.chance(0.7)) this.#start(name);
    this.#turns();
    this.#watch();
    const bursts = Array.from({ length: random.between(2, 6) }, () => random.next() * (faultsUntilMs - 500));
    for (const moment of bursts) {
      const count = random.between(1, 15);
      for (let nth = 0; nth < count; nth++) schedule.after(moment + random.delay(3), () => this.#enqueue());
    }
    const faultAt = () => random.pick(bursts) + random.delay(40);
    this.planFaults(this.#kinds, undefined, faultAt, (kind) => this.#inject(kind));
    this.runUntil(faultsUntilMs, maxSteps);
    this.faultRate = 0;
    for (const member of this.#members.values()) member.wake();
    this.#revive();
    // Each group has a member.
    for (const group of groups) this.#start(`last-${group}`, group);
    const isOver = (steps: number) => steps % 32 === 0 && this.#firstOpen() === undefined;
    this.runUntil(faultsUntilMs + settleWithinMs, maxSteps, isOver);
    const open = this.#firstOpen();
    if (open !== undefined) throw new Violation(`message ${open} was never handled`);
  }

  /** The first message, or copy, that is neither handled nor deleted. */
  #firstOpen(): string | undefined {
    for (let message = this.#enqueued[this.#done]; message !== undefined; message = this.#enqueued[this.#done]) {
      const copies = this.#copies.get(message.id) ?? [];
      const names = copies.length === 0 ? [nameOf(message, undefined)] : copies.map((copy) => nameOf(message, copy));
      const open = names.find((name) => !this.#effects.has(name) && !this.#deleted.has(name));
      if (open !== undefined) return open;
      // It stays so: nothing takes an effect back.
      this.#done += 1;
    }
    return undefined;
  }

  /** Every name has a process. One may lose its name after the last fault, by a hand-over that was under way. */
  #revive(): void {
    for (const [nth, name] of names.entries())
      if (!this.isRunning(name)) this.#start(name, groups[nth % groups.length]);
  }

  // ---- what the models ask ----

  notify(): void {
    for (const member of this.#members.values()) {
      if (this.random.chance(0.1)) this.counts.add("fault: lost notification");
      else this.schedule.after(this.random.delay(1), () => member.notified());
    }
  }

  /** A process has the name, or is about to take it. */
  isRunning(name: string): boolean {
    return this.#members.get(name)?.isDead === false;
  }

  /** A message is handed over. */
  handedOver({ id }: Enqueued, copies: readonly string[]): void {
    this.#copies.set(id, copies);
  }

  /** A member of this group claims. */
  claimed({ message, copyFor }: Row, group: string | undefined): void {
    if (copyFor !== undefined && copyFor !== `group ${group}`)
      throw new Violation(`message ${nameOf(message, copyFor)} was claimed by a member of ${group}`);
  }

  /** A handler's effects are committed. */
  effect(message: Enqueued, copyFor: string | undefined, channel: string, group: string | undefined): void {
    const { id, topic, key } = message;
    const name = nameOf(message, copyFor);
    if (copyFor?.startsWith("group") && copyFor !== `group ${group}` && this.store.keepsCopies(channel))
      throw new Violation(`message ${name} had its effects in ${group ?? "no group"}, in ${channel}`);
    if (copyFor?.startsWith("group") && !channel.startsWith("K "))
      throw new Violation(`message ${name} had its effects without a claim, in ${channel}`);
    if (this.#effects.has(name))
      throw new Violation(`message ${name} had its effects twice, the last time in ${channel}`);
    this.#effects.add(name);
    // What was deleted may still be in the memory of a member.
    if (key === undefined || this.#deleted.has(name)) return;
    const place = `${topic} ${key} ${copyFor ?? ""}`;
    const last = this.#lastOf.get(place) ?? 0;
    if (last > id) throw new Violation(`message ${id} of "${place}" had its effects behind ${last}, in ${channel}`);
    this.#lastOf.set(place, id);
  }

  /** A listener has found that numbers are missing, in a channel from which nothing is deleted. */
  gap(channel: string): void {
    throw new Violation(`numbers of ${channel} are missing`);
  }

  // ---- what happens ----

  #enqueue(): void {
    const { random } = this;
    const key = random.chance(0.6) ? `k${random.between(1, 3)}` : undefined;
    const isToAll = random.chance(0.3);
    const message = { id: this.#enqueued.length + 1, topic: random.pick(topics), key, isToAll };
    this.#enqueued.push(message);
    this.store.enqueue(message);
  }

  #turns(): void {
    this.schedule.after(1 + this.random.delay(10), () => this.store.turn(() => this.#turns()));
  }

  #start(name: string, group = this.random.chance(this.#memberRate) ? this.random.pick(groups) : undefined): void {
    this.#goneSince.delete(name);
    this.#members.set(name, new Member(this, name, group));
  }

  /** Listeners that are away are taken over by others that run: members by members of their group. */
  #watch(): void {
    const { schedule, random, counts, store } = this;
    const running = [...this.#members.values()].filter(({ isDead }) => !isDead);
    for (const { name, isDead } of this.#members.values()) {
      if (!isDead) this.#goneSince.delete(name);
      else if (!this.#goneSince.has(name)) this.#goneSince.set(name, schedule.now);
      const since = this.#goneSince.get(name) ?? schedule.now;
      if (schedule.now - since < absenceMs || running.length === 0 || store.owned(name).length === 0) continue;
      const taker = random.pick(running);
      if (store.mayTakeOver(name, taker.name)) taker.takeOver(name, false);
      else counts.add("transition: left to its group");
    }
    const single = running.find(
      ({ name }) => store.directory.has(name) && store.directory.get(name)!.group === undefined,
    );
    if (single !== undefined && store.groupWaits) {
      counts.add("transition: group's messages wait beside a listener that takes over");
      store.takeOverWaiting(single.name);
    }
    if (schedule.now > faultsUntilMs) this.#revive();
    schedule.after(50, () => this.#watch());
  }

  #inject(kind: Fault): void {
    const { random, schedule, counts } = this;
    const name = random.pick(names);
    const member = this.#members.get(name);
    if (kind !== "twin" && (member === undefined || member.isDead)) return;
    counts.add(`fault: ${kind}`);
    const again = (): void => {
      if (random.chance(0.7)) schedule.after(random.pick([1, 50, 500]) * random.next(), () => this.#restart(name));
    };
    if (kind === "kill") {
      member!.kill();
      again();
    } else if (kind === "stop") {
      member!.stop();
      again();
    } else if (kind === "stall") {
      member!.stall();
      schedule.after(random.pick([10, 100, 800]), () => member!.wake());
    } else if (kind === "force") {
      const other = [...this.#members.values()].find((each) => each !== member && !each.isDead);
      other?.takeOver(name, true);
    } else if (kind === "twin") this.#start(name);
    else this.#delete(name);
  }

  #restart(name: string): void {
    if (this.#members.get(name)?.isDead === true) this.#start(name);
  }

  /** An operator deletes what a member has claimed. */
  #delete(name: string): void {
    const rows = this.store.rowsOf(`K ${name}`, this.store.cursorOf(`K ${name}`)).slice(this.random.between(0, 2));
    for (const { message, copyFor } of rows) this.#deleted.add(nameOf(message, copyFor));
    this.store.rows = this.store.rows.filter((row) => !rows.includes(row));
  }
}

function nameOf({ id }: Enqueued, copyFor: string | undefined): string {
  return copyFor === undefined ? String(id) : `${id} for ${copyFor}`;
}
