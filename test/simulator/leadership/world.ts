/**
 * A run of the simulation in virtual time: processes, Postgres, messages, faults, and what must hold.
 *
 * - Commits of two leaders are never interleaved: all of an epoch come before the first of the next, and all of an epoch are
 *   one process's.
 * - Nothing is missing in the end.
 * - Where one is left who has received everything, the order of a queue is kept, but for repeats.
 * - A leader that lives is left alone: over restarts of Postgres, too.
 * - One that was killed is replaced within 10 s.
 * - One that cannot run functions gives way to one that can.
 */
import { setImmediate } from "node:timers/promises";
import type { InboundMessage } from "../../../src/nats/bridge/message.js";
import { Violation } from "../records.js";
import { SimulatedWorld } from "../world.js";
import type { Mutant } from "./mutants.js";
import { LeadershipProcess, queueOf } from "./process.js";
import { type Fault, type Profile, type ProfileName, profiles } from "./profiles.js";
import { LeadershipStore } from "./store.js";

const faultsFromMs = 9_000;
const faultsUntilMs = 60_000;
const endMs = 120_000;
const takeoverLimitMs = 10_000;
/** Until the leader has heard that another process can lead, and that one has taken over. */
const giveWayLimitMs = 15_000;

export class LeadershipWorld extends SimulatedWorld {
  readonly profile: Profile;
  readonly store: LeadershipStore;
  readonly processes: LeadershipProcess[] = [];
  /** The table of messages that were saved. */
  readonly saved: InboundMessage[] = [];
  readonly #excused = new Set<number>();
  #published = 0;
  #epochBeforeFaults = 0n;
  /** Something happened that makes a takeover late. */
  #disturbedAt = 0;
  #killedAt = 0;
  #settledFrom = 0;
  /** When a login was last refused. */
  #refusedAt = 0;
  /** Since when the leader has not been able to run functions while others could. */
  #unableSince: number | undefined;
  #violation: string | undefined;

  readonly #mutant: Mutant;

  constructor(seed: number, profile: ProfileName, mutant: Mutant = {}) {
    super(seed);
    this.#mutant = mutant;
    this.profile = profiles[profile];
    this.store = new LeadershipStore(this, mutant.store ?? {});
  }

  /** @throws Violation */
  async run(): Promise<void> {
    const { schedule, random } = this;
    const count = random.between(2, 4);
    for (let n = 0; n < count; n++) this.#start();
    schedule.after(0, () => this.#publish());
    this.#watchLeader();
    schedule.after(faultsFromMs, () => {
      this.#epochBeforeFaults = this.store.epoch;
      this.#fault();
    });
    while (schedule.step(endMs)) {
      await setImmediate();
      if (this.#violation !== undefined) throw new Violation(this.#violation);
    }
    this.#checkEnd();
  }

  fail(message: string): void {
    this.#violation ??= `at ${Math.round(this.schedule.now)} ms: ${message}`;
  }

  /** The lead was taken. */
  taken(): void {
    const { schedule, random, profile } = this;
    if (!profile.failsOverAfterTake || !this.hasFaults || !random.chance(0.6)) return;
    schedule.after(random.between(0, 400), () => {
      this.#inflict("failover");
      const leader = this.#alive.find(({ protocol }) => protocol.epoch !== undefined);
      if (leader !== undefined) this.#stall(leader);
    });
  }

  /** A statement is on its way. */
  sent(process: LeadershipProcess): void {
    const { schedule, random, profile } = this;
    if (!profile.faults.includes("session") || !this.hasFaults || !random.chance(0.004)) return;
    schedule.after(random.delay(1), () => {
      this.#disturbed(schedule.now);
      this.store.loseSession(process);
    });
  }

  /** Postgres itself has lost their commits. */
  excuse(ids: readonly number[]): void {
    for (const id of ids) this.#excused.add(id);
  }

  /** A process has ended in good order: there is one again some time after the last. */
  left(): void {
    if (this.#alive.length > 0) return;
    this.counts.add("all have left");
    this.schedule.after(this.random.between(0, 3_000), () => this.#start());
  }

  #start(): void {
    const process = new LeadershipProcess(this, this.processes.length + 1, this.#mutant);
    this.processes.push(process);
    process.ask();
    process.tell();
    process.after(this.random.delay(50), () => void process.protocol.start());
  }

  /** Faults still happen. */
  get hasFaults(): boolean {
    return this.schedule.now < faultsUntilMs;
  }

  get #alive(): LeadershipProcess[] {
    return this.processes.filter(({ isDead }) => !isDead);
  }

  #publish(): void {
    const { schedule, random, profile } = this;
    const number = this.#published++;
    if (this.#alive.every(({ isStopping }) => isStopping)) this.excuse([number]);
    for (const process of this.#alive) {
      if (process.isStopping) continue;
      const delayMs = random.chance(0.2) ? random.next() * profile.maxDelayMs : random.delay(0.5);
      process.arrivesAt = Math.max(process.arrivesAt, schedule.now + Math.min(delayMs, profile.maxDelayMs));
      process.after(process.arrivesAt - schedule.now, () => process.receive(number));
    }
    if (schedule.now < faultsUntilMs + 5_000) schedule.after(random.delay(40), () => this.#publish());
  }

  #fault(): void {
    const { schedule, random } = this;
    if (!this.hasFaults) return;
    this.#inflict(random.pick(this.profile.faults));
    schedule.after(random.between(50, 9_000), () => this.#fault());
  }

  #inflict(fault: Fault): void {
    const { random, store, schedule, profile } = this;
    if (this.#alive.length === 0) return;
    const victim = random.chance(0.7)
      ? (this.#alive.find(({ protocol }) => protocol.epoch !== undefined) ?? random.pick(this.#alive))
      : random.pick(this.#alive);
    // Somebody has to be left who has received everything.
    const others = this.#alive.filter(
      (process) => process !== victim && process.startedAt === 0 && !process.isStopping,
    );
    const mayLeave = fault === "clean stop" && profile.mayAllLeave === true;
    if ((fault === "kill" || fault === "clean stop") && others.length === 0 && !mayLeave) return;
    if (fault === "start" && this.#alive.length > 4) return;
    if (fault === "newcomer" && (victim.protocol.epoch === undefined || schedule.now < this.#settledFrom)) return;
    this.counts.add(`fault: ${fault}`);
    if (fault === "kill") this.#kill(victim);
    else if (fault === "clean stop") victim.stop();
    else if (fault === "all stop") for (const process of this.#alive) process.stop();
    else if (fault === "start") this.#start();
    else if (fault === "newcomer") this.#newcomer(victim);
    else if (fault === "refused login") this.#refuse(victim);
    else if (fault === "session") {
      this.#disturbed(schedule.now);
      store.loseSession(victim);
    } else if (fault === "failover") {
      this.#disturbed(schedule.now);
      store.failover();
    } else if (fault === "restart") {
      const downMs = random.between(10, 8_000);
      this.#disturbed(schedule.now + downMs);
      store.crash(downMs);
    } else this.#stall(victim);
  }

  #disturbed(until: number): void {
    this.#disturbedAt = Math.max(this.#disturbedAt, until);
  }

  #kill(victim: LeadershipProcess): void {
    const { schedule } = this;
    const { protocol } = victim;
    const silently = this.random.chance(0.3);
    const killedAt = schedule.now;
    this.#killedAt = killedAt;
    victim.kill();
    victim.diedSilently = silently;
    this.store.died(victim, silently);
    if (protocol.epoch === undefined) return;
    schedule.after(takeoverLimitMs, () => {
      if (
        this.profile.slowMs > 500 ||
        this.profile.mayAllLeave === true ||
        this.#killedAt > killedAt ||
        this.#refusedAt > killedAt ||
        this.#disturbedAt >= killedAt - 1_000
      )
        return;
      // Those that cannot run functions wait longer.
      if (!this.#alive.some(({ canRun }) => canRun)) return;
      this.counts.add("takeover watched");
      if (!this.#alive.some((process) => process.protocol.epoch !== undefined)) {
        this.fail(`nobody leads ${takeoverLimitMs} ms after the leader was killed`);
      }
    });
  }

  /** For a while its login is refused. */
  #refuse(victim: LeadershipProcess): void {
    const { schedule, random } = this;
    // Mostly there are others who can.
    if (!this.#alive.every(({ canRun }) => canRun) && random.chance(0.7)) return;
    if (!victim.canRun) return;
    victim.login(false);
    this.#refusedAt = schedule.now;
    schedule.after(random.between(1_000, 40_000), () => victim.login(true));
  }

  /** A leader that cannot run functions is not to lead for long where others could. */
  #watchLeader(): void {
    const { schedule } = this;
    const leader = this.#alive.find(({ protocol }) => protocol.epoch !== undefined);
    const couldLead = (process: LeadershipProcess) => process !== leader && process.canRun && process.told.canRun;
    if (leader === undefined || leader.canRun || !leader.shouldGiveWay || !this.#alive.some(couldLead)) {
      this.#unableSince = undefined;
    } else {
      this.#unableSince ??= schedule.now;
      const ms = schedule.now - this.#unableSince;
      if (ms > giveWayLimitMs && Math.max(this.#killedAt, this.#disturbedAt) < this.#unableSince) {
        this.fail(`a process that cannot run functions has led for ${Math.round(ms)} ms, and others could`);
      }
    }
    schedule.after(500, () => this.#watchLeader());
  }

  /** The others are killed, another one is started, and at about that time the leader stands still. */
  #newcomer(leader: LeadershipProcess): void {
    const { schedule, random } = this;
    // Until then it may have what nobody else has.
    this.#settledFrom = schedule.now + 20_000;
    for (const process of this.#alive) if (process !== leader) this.#kill(process);
    schedule.after(random.between(0, 2_000), () => this.#start());
    schedule.after(random.between(0, 4_000), () => this.#stall(leader, random.between(4_500, 9_000)));
  }

  #stall(victim: LeadershipProcess, stallMs = this.random.between(50, 6_500)): void {
    if (victim.isStalled) return;
    const { schedule } = this;
    this.#disturbed(schedule.now + stallMs);
    victim.stall();
    schedule.after(stallMs, () => victim.wake());
  }

  #checkEnd(): void {
    const leaders = this.#alive.filter(({ protocol }) => protocol.epoch !== undefined);
    if (leaders.length !== 1 || leaders[0]!.protocol.state !== "held")
      throw new Violation(`${leaders.length} lead in the end`);
    if (this.profile.isCalm && this.store.epoch !== this.#epochBeforeFaults) {
      throw new Violation("a leader that lives was replaced");
    }
    const done = new Set(this.store.ledger.flatMap(({ ids }) => ids));
    const missing = Array.from({ length: this.#published }, (_, id) => id).filter(
      (id) => !done.has(id) && !this.#excused.has(id),
    );
    this.counts.add("published", this.#published);
    this.counts.add("done again", this.store.ledger.flatMap(({ ids }) => ids).length - done.size);
    if (missing.length > 0)
      throw new Violation(`${missing.length} of ${this.#published} are missing, such as ${missing[0]}`);
    if (this.profile.keepsOrder === true) this.#checkOrder();
  }

  /** In each queue: repeats do not count. */
  #checkOrder(): void {
    const highest = new Map<bigint, number>();
    const done = new Set<number>();
    for (const id of this.store.ledger.flatMap(({ ids }) => ids)) {
      if (done.has(id)) continue;
      done.add(id);
      const before = highest.get(queueOf(id)) ?? -1;
      if (id < before) throw new Violation(`${id} was first run after ${before}`);
      highest.set(queueOf(id), id);
    }
  }
}
