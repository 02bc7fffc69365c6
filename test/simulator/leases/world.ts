/**
 * Run of leases: users that enqueue, members that come, take, handle, take over and go, faults, and the rules that must hold.
 * Everything follows from the seed.
 */
import { Violation } from "../records.js";
import { SimulatedWorld } from "../world.js";
import { Member } from "./member.js";
import type { LeaseMutant } from "./mutants.js";
import { groups, LeaseStore, topics } from "./store.js";

const names = ["m1", "m2", "m3"] as const;
const faultKinds = ["kill", "stall", "stop", "crash", "failover", "outage"] as const;
type Fault = (typeof faultKinds)[number];

const faultsUntilMs = 3_000;
const settleWithinMs = 60_000;
const maxSteps = 300_000;

export class LeaseWorld extends SimulatedWorld {
  readonly mutant: LeaseMutant;
  readonly store: LeaseStore;
  faultRate: number;
  readonly #members = new Map<string, Member>();
  readonly #kinds: readonly Fault[];
  readonly #hasSettings: boolean;
  #enqueued = 0;
  #open = 0;

  constructor(seed: number, mutant: LeaseMutant = {}) {
    super(seed);
    this.mutant = mutant;
    this.store = new LeaseStore(this, mutant.store ?? {});
    const isCalm = this.random.chance(0.1);
    this.#kinds = faultKinds.filter(() => !isCalm && this.random.chance(0.4));
    this.faultRate = isCalm ? 0 : this.random.pick([0, 0.02, 0.2]);
    // Other seeds have no settings.
    this.#hasSettings = seed % 3 === 0;
  }

  run(): void {
    const { random, schedule } = this;
    if (this.#hasSettings) this.#planSettings();
    for (const name of names) if (random.chance(0.7)) this.#start(name);
    const bursts = Array.from({ length: random.between(2, 6) }, () => random.next() * (faultsUntilMs - 500));
    for (const moment of bursts) {
      const count = random.between(1, 12);
      for (let nth = 0; nth < count; nth++) schedule.after(moment + random.delay(3), () => this.#enqueue());
    }
    const faultAt = () => random.pick(bursts) + random.delay(40);
    this.planFaults(this.#kinds, undefined, faultAt, (kind) => this.#inject(kind));
    this.runUntil(faultsUntilMs, maxSteps);
    this.faultRate = 0;
    this.store.postgres.isAvailable = true;
    if (this.#hasSettings) for (const topic of topics) this.#setPaused(topic, false);
    for (const member of this.#members.values()) member.wake();
    this.#revive();
    for (const group of groups) this.#start(`last-${group}`, group);
    this.runUntil(
      faultsUntilMs + settleWithinMs,
      maxSteps,
      (steps) => steps % 64 === 0 && this.#firstOpen() === undefined,
    );
    const open = this.#firstOpen();
    if (open !== undefined) throw new Violation(`message ${open} was never handled`);
  }

  /** Every name has a process again, now and later: one may be about to end. */
  #revive(): void {
    for (const name of names) if (this.#members.get(name)?.isDead !== false) this.#start(name);
    this.schedule.after(500, () => this.#revive());
  }

  #firstOpen(): string | undefined {
    const { store } = this;
    if (this.#open > 0) return "of a transaction";
    for (const { id, topic, isToAll } of store.messages.values()) {
      const copies = isToAll ? store.copies.get(id) : [topic];
      if (copies === undefined) return `${id}`;
      for (const place of copies) {
        const name = place === topic ? `${id}` : `${id} for ${place}`;
        if (!store.isOver(name)) return name;
      }
    }
    return undefined;
  }

  notify(): void {
    for (const member of this.#members.values()) {
      if (this.random.chance(this.faultRate)) this.counts.add("fault: lost notification");
      else this.schedule.after(this.random.delay(1), () => member.notified());
    }
  }

  /** An operator limits one topic, and pauses both now and then. */
  #planSettings(): void {
    const { random, schedule, store } = this;
    const limit = { running: random.between(1, 3), burst: random.between(1, 4), intervalMs: random.pick([5, 40]) };
    store.limit("u", limit);
    for (const topic of topics) {
      for (let left = random.between(0, 3); left > 0; left--) {
        const at = random.next() * (faultsUntilMs - 500);
        schedule.after(at, () => this.#setPaused(topic, true));
        schedule.after(at + random.pick([3, 30, 300]), () => this.#setPaused(topic, false));
      }
    }
  }

  #setPaused(topic: string, isPaused: boolean): void {
    const { random, schedule } = this;
    if (!this.store.postgres.isAvailable) return;
    this.store.pause(topic, isPaused);
    for (const member of this.#members.values()) {
      if (random.chance(this.faultRate)) this.counts.add("fault: lost notification");
      else schedule.after(random.delay(1), () => member.settingsChanged());
    }
  }

  #enqueue(): void {
    const { random, store } = this;
    const messages = Array.from({ length: random.between(1, 3) }, () => ({
      id: ++this.#enqueued,
      topic: random.pick(topics),
      role: random.chance(0.3) ? "billing" : "shop",
      key: random.chance(0.6) ? `k${random.between(1, 3)}` : undefined,
      isToAll: random.chance(0.2),
    }));
    if (!store.postgres.isAvailable) return;
    this.#open += 1;
    store.enqueue(messages, () => {
      this.#open -= 1;
    });
  }

  #start(name: string, group = this.random.chance(0.5) ? this.random.pick(groups) : undefined): void {
    this.#members.set(name, new Member(this, name, group));
  }

  #inject(kind: Fault): void {
    const { random, schedule, counts } = this;
    const { postgres } = this.store;
    const name = random.pick(names);
    const member = this.#members.get(name);
    const isOfMember = kind === "kill" || kind === "stall" || kind === "stop";
    if (isOfMember && (member === undefined || member.isDead)) return;
    counts.add(`fault: ${kind}`);
    const again = (): void => {
      if (!random.chance(0.7)) return;
      schedule.after(random.pick([1, 50, 500]) * random.next(), () => {
        if (this.#members.get(name)?.isDead === true) this.#start(name);
      });
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
    } else if (kind === "crash") postgres.crash();
    else if (kind === "failover") postgres.failover(random.between(1, 8));
    else {
      postgres.isAvailable = false;
      schedule.after(random.pick([20, 300, 900]), () => {
        postgres.isAvailable = true;
      });
    }
  }
}
