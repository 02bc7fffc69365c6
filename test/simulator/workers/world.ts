/**
 * Run of workers: users that enqueue and cancel, processes whose workers take and handle, with the state machine as it is, faults, and the
 * rules that must hold. Everything follows from the seed.
 */
import type { WorkerEffects } from "../../../src/jobs-and-peers/queue/worker/effects.js";
import { WorkerMachine } from "../../../src/jobs-and-peers/queue/worker/worker-machine.js";
import { Violation } from "../records.js";
import { SimulatedWorld } from "../world.js";
import type { WorkerMutant } from "./mutants.js";
import { WorkerProcess } from "./process.js";
import { leaseMs, topics, WorkerStore } from "./store.js";

const faultKinds = ["cut", "reset", "kill", "stall", "stop", "pause", "pause everywhere", "cancel"] as const;
type Fault = (typeof faultKinds)[number];

const faultsUntilMs = 2_000;
/** A message that could not run alone is tried again after 30 s. */
const settleWithinMs = 300_000;
const maxSteps = 300_000;

export class WorkerWorld extends SimulatedWorld {
  readonly store: WorkerStore;
  /** Part of the statements that fail, and of the notifications that are lost. */
  faultRate: number;
  /** Typical time in ms until a statement is carried out, and until its answer comes. */
  readonly latencyMs: number;
  readonly #mutant: WorkerMutant;
  readonly #processes: WorkerProcess[] = [];
  readonly #kinds: readonly Fault[];

  constructor(seed: number, mutant: WorkerMutant = {}) {
    super(seed);
    this.#mutant = mutant;
    this.store = new WorkerStore(this);
    this.#kinds = faultKinds.filter(() => this.random.chance(0.5));
    this.faultRate = this.random.pick([0, 0.02, 0.1]);
    this.latencyMs = this.random.pick([0.5, 5]);
  }

  makeMachine(effects: WorkerEffects): WorkerMachine {
    const { Machine = WorkerMachine } = this.#mutant;
    return new Machine(effects);
  }

  run(): void {
    const { random, schedule } = this;
    const number = random.between(1, 2);
    for (let slot = 0; slot < number; slot++) this.#start(slot, true);
    const bursts = Array.from({ length: random.between(2, 6) }, () => random.next() * (faultsUntilMs - 500));
    for (const moment of bursts) schedule.after(moment, () => this.#enqueue());
    const faultAt = (): number => random.pick(bursts) + random.delay(30);
    this.planFaults(this.#kinds, random.between(1, 6), faultAt, (kind) => this.#inject(kind));
    this.runUntil(faultsUntilMs, maxSteps, () => this.#check());
    this.faultRate = 0;
    for (const topic of topics) this.#pauseEverywhere(topic, false);
    for (const [slot, process] of this.#processes.entries()) {
      process.wake();
      if (process.isDead) this.#start(slot, false);
      for (const topic of topics) this.#processes[slot]!.pause(topic, false);
    }
    // One of the processes may just be ending.
    this.schedule.after(1_000, () => this.#start(number, false));
    this.runUntil(faultsUntilMs + settleWithinMs, maxSteps, () => this.#check() || this.store.rows.size === 0);
    const [row] = this.store.rows.values();
    if (row !== undefined) throw new Violation(`row ${row.rank} of "${row.topic}" is never handled`);
  }

  #check(): false {
    for (const process of this.#processes) process.check();
    return false;
  }

  #start(slot: number, wasClean: boolean): void {
    this.#processes[slot] = new WorkerProcess(this, wasClean);
  }

  #tell(tell: (process: WorkerProcess) => void): void {
    for (const process of this.#processes)
      if (!this.random.chance(this.faultRate)) this.schedule.after(this.random.delay(1), () => tell(process));
  }

  #enqueue(): void {
    const { random } = this;
    const topic = random.pick(topics);
    for (let left = random.between(1, 15); left > 0; left--) {
      const key = random.chance(0.6) ? `k${random.between(1, 2)}` : undefined;
      this.store.enqueue(topic, key, key === undefined && random.chance(0.2));
    }
    this.#tell((process) => process.notify(topic));
  }

  #pauseEverywhere(topic: string, isPaused: boolean): void {
    if (isPaused) this.store.paused.add(topic);
    else this.store.paused.delete(topic);
    this.#tell((process) => process.settingsChanged(topic));
  }

  #cancel(): void {
    const { random } = this;
    for (const row of [...this.store.rows.values()]) {
      if (!random.chance(0.3)) continue;
      this.store.cancel(row);
      this.#tell((process) => process.mayBeCancelled(row.rank));
    }
  }

  #inject(kind: Fault): void {
    const { random, schedule, counts } = this;
    const slot = random.between(0, this.#processes.length - 1);
    const process = this.#processes[slot]!;
    if (process.isDead) return;
    counts.add(`fault: ${kind}`);
    const topic = random.pick(topics);
    const laterMs = random.pick([1, 30, 500]) * random.next();
    const again = (): void => {
      if (this.#processes[slot] === process && process.isDead) this.#start(slot, kind === "stop");
    };
    if (kind === "cut") process.cut();
    else if (kind === "reset") process.reset();
    else if (kind === "cancel") this.#cancel();
    else if (kind === "kill") {
      process.kill();
      schedule.after(laterMs, again);
    } else if (kind === "stop") {
      process.stop(random.pick([0, 10, 1_000]));
      schedule.after(laterMs + 200, again);
    } else if (kind === "stall") {
      process.stall();
      schedule.after(random.pick([10, 2 * leaseMs]), () => process.wake());
    } else {
      const set = (isPaused: boolean): void => {
        if (kind === "pause") process.pause(topic, isPaused);
        else this.#pauseEverywhere(topic, isPaused);
      };
      set(true);
      schedule.after(laterMs, () => set(false));
    }
  }
}
