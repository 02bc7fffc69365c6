/**
 * Shares a number of database sessions among queues: each queue that has a step gets one in its turn, so that a queue with
 * many messages, or one that pauses, does not keep the others waiting. A role never has all of them, however many queues it has,
 * as long as there is another role: its functions may all wait for one lock. Pure: it runs nothing itself and has no clock.
 */
import { Fifo } from "../../runtime/index.js";
import type { Outcome, Step } from "./steps.js";
import type { SubscriptionQueue } from "./subscription-queue.js";

/** There is nothing to do now. */
export interface Wait {
  readonly kind: "wait";
  /** Ask again after this time; Infinity: not before {@link QueueScheduler.onReady} was called. */
  readonly waitMs: number;
}

/** What queues of one role have out, and those of them that wait until that is less. */
interface RoleTurns {
  readonly name: string;
  queues: number;
  running: number;
  readonly held: Fifo<SubscriptionQueue>;
}

export class QueueScheduler {
  /** Called when {@link next} may have a step where it had none. Set by the owner. */
  onReady: () => void = () => undefined;
  protected readonly members = new Set<SubscriptionQueue>();
  /** In the order of their turns. */
  protected readonly turns = new Fifo<SubscriptionQueue>();
  protected readonly pausing = new Set<SubscriptionQueue>();
  /** Those in {@link turns} or {@link pausing}. */
  readonly #waiting = new Set<SubscriptionQueue>();
  readonly #out = new Map<Step, { readonly queue: SubscriptionQueue; readonly role: RoleTurns }>();
  readonly #roles = new Map<string, RoleTurns>();
  /** The role of each member, as it was when it was added. */
  readonly #memberRoles = new Map<SubscriptionQueue, RoleTurns>();

  protected readonly sessions: number;

  /** @param sessions how many steps may be out at a time */
  constructor(sessions: number) {
    this.sessions = sessions;
  }

  /** Steps that are out, those of removed queues too. */
  get running(): number {
    return this.#out.size;
  }

  add(queue: SubscriptionQueue): void {
    this.members.add(queue);
    const { runAs } = queue.subscription;
    let role = this.#roles.get(runAs);
    if (role === undefined) this.#roles.set(runAs, (role = { name: runAs, queues: 0, running: 0, held: new Fifo() }));
    role.queues += 1;
    this.#memberRoles.set(queue, role);
    queue.onReady = () => this.#enqueue(queue);
    this.#enqueue(queue);
  }

  /** Closes the queue. A step of it that is out has its session until it is settled. */
  remove(queue: SubscriptionQueue): void {
    const role = this.#memberRoles.get(queue);
    if (this.members.delete(queue) && role !== undefined && --role.queues === 0) {
      this.#roles.delete(role.name);
      for (let held = role.held.shift(); held !== undefined; held = role.held.shift()) this.#waiting.delete(held);
    }
    this.#memberRoles.delete(queue);
    if (this.pausing.delete(queue)) this.#waiting.delete(queue);
    queue.onReady = () => undefined;
    queue.close();
  }

  /** The next step of some queue, or how long there is none. The step is out until it is settled. */
  next(now: number): Step | Wait {
    if (this.#out.size >= this.sessions) return forever;
    for (const queue of this.pausing) {
      if (queue.readyAt > now) continue;
      this.pausing.delete(queue);
      this.turns.push(queue);
    }
    for (let queue = this.#takeTurn(); queue !== undefined; queue = this.#takeTurn()) {
      const role = this.#roleOf(queue);
      if (this.members.has(queue) && role.running >= this.mostOfRole) {
        role.held.push(queue);
        continue;
      }
      const step = queue.next(now);
      if (step !== undefined) {
        this.#waiting.delete(queue);
        role.running += 1;
        this.#out.set(step, { queue, role });
        return step;
      }
      if (queue.readyAt < Number.POSITIVE_INFINITY) this.pausing.add(queue);
      else this.#waiting.delete(queue);
    }
    let soonest = Number.POSITIVE_INFINITY;
    for (const { readyAt } of this.pausing) soonest = Math.min(soonest, readyAt);
    return soonest === Number.POSITIVE_INFINITY ? forever : { kind: "wait", waitMs: Math.max(0, soonest - now) };
  }

  /** Tells how a step went. Each step that was handed out is settled once, also after its queue was stopped or removed. */
  settle(step: Step, outcome: Outcome, now: number): void {
    const settled = this.#out.get(step);
    if (settled === undefined) return;
    const { queue, role } = settled;
    this.#out.delete(step);
    role.running -= 1;
    queue.settle(step, outcome, now);
    this.#enqueue(queue);
  }

  /** Postgres answers again: ends the pauses that queues make because it did not. */
  wake(): void {
    for (const queue of this.members) queue.wake();
  }

  /** What queues are offered from now on they keep, and do not hand out. */
  hold(): void {
    for (const queue of this.members) queue.hold();
  }

  /** Resolves with true when no queue has anything left that it may hand out, or with false when one was stopped before that. */
  async drain(): Promise<boolean> {
    return (await Promise.all([...this.members].map((queue) => queue.drain()))).every((done) => done);
  }

  /** Hands out nothing more: for a process that does not lead any more, or ends. */
  stop(): void {
    for (const queue of this.members) queue.stop();
  }

  /** How many steps of one role may be out: one session is left for the others, if there are any. */
  protected get mostOfRole(): number {
    return this.#roles.size > 1 ? Math.max(1, this.sessions - 1) : this.sessions;
  }

  #roleOf(queue: SubscriptionQueue): RoleTurns {
    return this.#memberRoles.get(queue) ?? { name: "", queues: 0, running: 0, held: new Fifo() };
  }

  /** The queue whose turn it is: first those that were held back until their role has a session again. */
  #takeTurn(): SubscriptionQueue | undefined {
    for (const { running, held } of this.#roles.values()) {
      if (held.length > 0 && running < this.mostOfRole) return held.shift();
    }
    return this.turns.shift();
  }

  /** Puts the queue behind all that wait for a turn. */
  #enqueue(queue: SubscriptionQueue): void {
    if (!this.#waiting.has(queue) && queue.readyAt < Number.POSITIVE_INFINITY) {
      this.#waiting.add(queue);
      this.turns.push(queue);
    }
    this.onReady();
  }
}

const forever: Wait = { kind: "wait", waitMs: Number.POSITIVE_INFINITY };
