/** A random history: messages arrive, steps run with faults, and the rules are checked after every event. */
import {
  ByteBudget,
  Discards,
  type QueueContext,
  QueueScheduler,
  type QueueSettings,
  type Step,
  SubscriptionQueue,
} from "../../../src/nats/bridge/queue/index.js";
import { type QueueRules, queueRules } from "../../../src/nats/bridge/queue/rules.js";
import { subscription } from "../../bridge/queue/support.js";
import { Random } from "../random.js";
import { Counts } from "../records.js";
import type { MutantOptions } from "../simulation.js";
import { type Execution, execute } from "./execution.js";
import { checkStep, follow } from "./rules.js";
import { must, type Nature, SimulatedMessage, SimulatedQueue } from "./simulated.js";

/** Rules and classes that a mutant replaces. */
export interface QueueMutant extends MutantOptions {
  readonly rules?: Partial<QueueRules>;
  readonly Queue?: typeof SubscriptionQueue;
  readonly Scheduler?: typeof QueueScheduler;
  readonly Budget?: typeof ByteBudget;
}

interface Running {
  readonly step: Step;
  readonly queue: SimulatedQueue;
  readonly execution: Execution;
  readonly endsAt: number;
}

const mixed: readonly Nature[] = [
  ...Array<Nature>(24).fill("good"),
  ...(["fails", "fails", "kills its session", "hangs", "transient"] as const),
];
const mostSubjects = 2;

export class QueueWorld {
  readonly counts = new Counts();
  readonly #random: Random;
  #now = 0;
  #numbers = 0;
  readonly #scheduler: QueueScheduler;
  readonly #settings: QueueSettings;
  readonly #context: QueueContext;
  readonly #queues: SimulatedQueue[] = [];
  readonly #running: Running[] = [];
  #discarded = 0;
  readonly #sessions: number;

  constructor(
    seed: number,
    { rules, Queue = SubscriptionQueue, Scheduler = QueueScheduler, Budget = ByteBudget }: QueueMutant = {},
  ) {
    const random = (this.#random = new Random(seed));
    this.#sessions = random.between(1, 3);
    this.#settings = {
      maxBatchMessages: random.pick([1, 4, 16, 1000]),
      maxBatchBytes: random.pick([700, 3000, 1_000_000]),
      batchTargetMs: 100,
      batchPauseMinMs: 10,
      batchPauseMaxMs: 80,
      sessionLostCode: "session_lost",
      random: () => random.next(),
    };
    const budget = new Budget(random.pick([2_000, 8_000, 1_000_000]));
    this.#context = { settings: this.#settings, budget, discards: new Discards(mostSubjects) };
    this.#scheduler = new Scheduler(this.#sessions);
    for (let queues = random.between(1, 4); queues > 0; queues--) {
      const runAs = random.pick(["one", "other"]);
      const queue = new Queue({ ...subscription, id: BigInt(queues), runAs }, this.#context, {
        rules: { ...queueRules, ...rules },
      });
      const natures = random.chance(0.1) ? (["fails"] as const) : random.chance(0.3) ? (["good"] as const) : mixed;
      this.#queues.push(new SimulatedQueue(queue, runAs, random.pick([0.01, 1, 40]), natures));
      this.#scheduler.add(queue);
    }
  }

  run(): void {
    let arrivals = this.#random.between(1, 8);
    let arrivalAt = 0;
    for (let events = 0; ; events++) {
      must(events < 3000, "a history comes to an end");
      const waitMs = this.#handOut();
      const first = this.#running.reduce<Running | undefined>(
        (soonest, one) => (soonest === undefined || one.endsAt < soonest.endsAt ? one : soonest),
        undefined,
      );
      const nextArrival = arrivals > 0 ? arrivalAt : Number.POSITIVE_INFINITY;
      const at = Math.min(this.#now + waitMs, nextArrival, first?.endsAt ?? Number.POSITIVE_INFINITY);
      if (at === Number.POSITIVE_INFINITY) break;
      this.#now = Math.max(this.#now, at);
      if (at === nextArrival) {
        arrivals -= 1;
        arrivalAt = this.#now + this.#random.delay(20);
        this.#somethingHappens();
      } else if (first !== undefined && at === first.endsAt) this.#end(first);
      if (this.#random.chance(0.01)) this.#wake();
      this.#look();
    }
    this.#finish();
  }

  /** Hands out steps while there are some. Returns how long there is none. */
  #handOut(): number {
    for (;;) {
      const next = this.#scheduler.next(this.#now);
      if (next.kind === "wait") {
        if (this.#running.length < this.#sessions) this.#checkIdle(next.waitMs);
        return next.waitMs;
      }
      const queue = this.#queueOf(next);
      checkStep(next, queue, this.#settings, this.#now);
      must(!this.#isFull(queue), "a session is left for another role");
      for (const other of this.#queues) {
        if (other.queue.readyAt <= this.#now && !this.#isFull(other))
          must(++other.passedOver <= this.#queues.length, "queues take turns");
      }
      const execution = execute(next, queue, this.#random, this.counts);
      this.counts.add(`${next.kind} ${execution.outcome.kind}`);
      this.#running.push({ step: next, queue, execution, endsAt: this.#now + execution.durationMs });
      must(this.#running.length <= this.#sessions, "no more steps are out than there are sessions");
    }
  }

  #queueOf(step: Step): SimulatedQueue {
    return this.#queues.find(({ queue }) => queue.subscription === step.subscription)!;
  }

  #checkIdle(waitMs: number): void {
    for (const queue of this.#queues) {
      if (queue.hasWork && !this.#isFull(queue))
        must(queue.pauseTo >= this.#now + waitMs, "no queue waits that has something to do");
    }
  }

  /** True if no session is free for the role: one is left for other roles, where there are any. */
  #isFull({ role }: SimulatedQueue): boolean {
    const roles = new Set(this.#queues.filter(({ closed }) => !closed).map((queue) => queue.role)).size;
    const most = roles > 1 ? Math.max(1, this.#sessions - 1) : this.#sessions;
    return this.#running.filter(({ queue }) => queue.role === role).length >= most;
  }

  #end(running: Running): void {
    this.#running.splice(this.#running.indexOf(running), 1);
    const { step, queue, execution } = running;
    follow(step, execution, queue, this.#settings, this.#now);
    this.#scheduler.onOutcome(step, execution.outcome, this.#now);
  }

  #somethingHappens(): void {
    const random = this.#random;
    const queue = random.pick(this.#queues);
    if (random.chance(0.02)) this.#close(queue);
    else if (random.chance(0.03)) this.#hold();
    else if (random.chance(0.05)) this.#wake();
    else for (let burst = random.pick([1, 3, 12, 30]); burst > 0; burst--) this.#offer(queue);
  }

  #wake(): void {
    this.#scheduler.wake();
    for (const queue of this.#queues) {
      if (!queue.waitsForPostgres) continue;
      queue.waitsForPostgres = false;
      queue.pauseFrom = queue.pauseTo = Number.NEGATIVE_INFINITY;
      queue.failuresInARow = 0;
      this.counts.add("woken");
    }
  }

  #hold(): void {
    this.#scheduler.hold();
    for (const queue of this.#queues) queue.open = Math.min(queue.open, queue.accepted.length);
    this.counts.add("held back");
  }

  #close(queue: SimulatedQueue): void {
    queue.over = queue.closed = true;
    this.#scheduler.remove(queue.queue);
    this.counts.add("closed");
  }

  #offer(queue: SimulatedQueue): void {
    const message = this.#message(queue);
    const fits = this.#used() === 0 || this.#hasRoom(queue, message.memory);
    must(queue.queue.offer(message) === (fits && !queue.over), "a message is taken if there is room");
    if (queue.over) return;
    if (fits) queue.accepted.push(message);
    else this.#discarded += 1;
  }

  #used(isCounted: (queue: SimulatedQueue) => boolean = () => true): number {
    return this.#queues.filter(isCounted).reduce((sum, { memory }) => sum + memory, 0);
  }

  /**
   * True if there is room in all the memory, whose last quarter is divided among roles, and in the role's part, which
   * is divided among its queues.
   */
  #hasRoom(queue: SimulatedQueue, bytes: number): boolean {
    const { limitBytes } = this.#context.budget;
    const open = this.#queues.filter(({ closed }) => !closed);
    const roles = new Set(open.map(({ role }) => role)).size;
    const part = limitBytes / 4 / roles;
    const byOthers = this.#used(({ role }) => role !== queue.role);
    const ofRole = Math.max(limitBytes - part * (roles - 1) - byOthers, Math.min(part, limitBytes - byOthers));
    const used = this.#used(({ role }) => role === queue.role) + bytes;
    if (used > ofRole) return false;
    const others = open.filter((other) => other !== queue && other.role === queue.role);
    const busy = others.filter(({ memory }) => memory > 0).length;
    const isAnyIdle = busy < others.length;
    const otherParts = busy + (isAnyIdle ? 1 : 0);
    const partOfQueue = ofRole / 4 / (1 + otherParts);
    if (used <= ofRole - partOfQueue * otherParts) return true;
    return queue.memory + bytes <= partOfQueue && (!isAnyIdle || queue.memory + bytes <= ofRole - used);
  }

  #message(queue: SimulatedQueue): SimulatedMessage {
    const random = this.#random;
    const nature = random.pick(queue.natures);
    const transientRuns = nature === "transient" ? random.between(1, 5) : 0;
    const subject = random.pick(["a", "b", "c", "d"]);
    const bytes = random.chance(0.02) ? 3000 : random.between(0, 300);
    return new SimulatedMessage(++this.#numbers, subject, nature, transientRuns, bytes, this.#now);
  }

  /** Invariants that hold at any time. */
  #look(): void {
    const { budget, discards } = this.#context;
    let used = 0;
    for (const queue of this.#queues) {
      used += queue.memory;
      if (queue.closed) continue;
      must(queue.queue.oldestReceivedAt === queue.oldest?.receivedAt, "the oldest message that is not done is known");
      must(queue.queue.length === queue.accepted.length - queue.done, "what is not done is queued");
    }
    must(budget.usedBytes === used, "the memory of what is not done is counted, and no other");
    const bySubject = [...discards.bySubject.values()].reduce((sum, count) => sum + count, discards.other);
    must(discards.total === this.#discarded && bySubject === this.#discarded, "what is discarded is counted");
    must(discards.bySubject.size <= mostSubjects, "not any number of subjects is told apart");
  }

  #finish(): void {
    for (const queue of this.#queues) {
      for (const message of queue.accepted.slice(0, queue.done)) {
        if (message.guilt !== undefined) must(message.deadLettered, "what is guilty is in dead_letters");
        else must(message.commits > 0 && !message.deadLettered, "what is not is committed");
      }
      if (queue.over) this.#scheduler.remove(queue.queue);
      else {
        must(queue.next === undefined, "everything is done in the end");
        this.#scheduler.remove(queue.queue);
      }
    }
    must(this.#context.budget.usedBytes === 0, "all memory is given back");
    if (this.#discarded > 0) this.counts.add("discarded");
  }
}
