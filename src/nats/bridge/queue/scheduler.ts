/**
 * Shares the database sessions among subscriptions in a round robin, so that a subscription with many messages, with
 * pauses, or with many queues (a stream) does not delay the others. While there are several roles, one role never has
 * all of several sessions, however many queues it has. While there are several subscriptions, one never has all
 * sessions either, because its functions may all wait for the same lock. Pure: no I/O and no clock.
 */
import { RoundRobin } from "../../../foundation/runtime/index.js";
import type { Outcome, Step } from "./steps.js";
import type { SubscriptionQueue } from "./subscription-queue.js";

/** No step can start now. */
export interface Wait {
  readonly kind: "wait";
  /** Time until the next call of {@link QueueScheduler.next}; Infinity: not before {@link QueueScheduler.onReady}. */
  readonly waitMs: number;
}

/** Number of queues and running steps of a role. */
interface RoleShare {
  queues: number;
  running: number;
}

/** Queues and running steps of a subscription. Its role is that of the time when its first queue was added. */
interface SubscriptionShare {
  readonly runAs: string;
  readonly role: RoleShare;
  queues: number;
  running: number;
  /** Queues that are ready or pause. Others leave at their next turn. */
  readonly turns: RoundRobin<SubscriptionQueue>;
}

export class QueueScheduler {
  /** Called when {@link next} may return a step again. Set by the owner. */
  onReady: () => void = () => undefined;
  protected readonly members = new Map<SubscriptionQueue, SubscriptionShare>();
  /** Subscriptions with queues that are ready or pause. Others leave at their next turn. */
  protected readonly turns = new RoundRobin<SubscriptionShare>();
  readonly #running = new Map<Step, { readonly queue: SubscriptionQueue; readonly share: SubscriptionShare }>();
  readonly #roles = new Map<string, RoleShare>();
  readonly #subscriptions = new Map<bigint, SubscriptionShare>();

  protected readonly sessions: number;

  /** @param sessions maximum number of concurrent steps */
  constructor(sessions: number) {
    this.sessions = sessions;
  }

  /** Number of running steps, including those of removed queues. */
  get running(): number {
    return this.#running.size;
  }

  add(queue: SubscriptionQueue): void {
    const { runAs, id } = queue.subscription;
    const share = this.#subscriptions.get(id) ?? this.#newShare(runAs);
    this.#subscriptions.set(id, share);
    share.queues += 1;
    share.role.queues += 1;
    this.members.set(queue, share);
    queue.onReady = () => this.#awaitTurn(queue, share);
    this.#awaitTurn(queue, share);
  }

  /** Removes and closes the queue. A running step keeps its session until its outcome is reported. */
  remove(queue: SubscriptionQueue): void {
    const share = this.members.get(queue);
    if (share !== undefined) {
      this.members.delete(queue);
      share.turns.delete(queue);
      share.queues -= 1;
      share.role.queues -= 1;
      if (share.queues === 0) this.#subscriptions.delete(queue.subscription.id);
      if (share.role.queues === 0) this.#roles.delete(share.runAs);
    }
    queue.onReady = () => undefined;
    queue.close();
  }

  /** Starts the next step of some queue, or returns the time to wait. */
  next(now: number): Step | Wait {
    if (this.#running.size >= this.sessions) return { kind: "wait", waitMs: Number.POSITIVE_INFINITY };
    let soonest = Number.POSITIVE_INFINITY;
    const step = this.turns.next((share) => {
      if (this.#isFull(share.role, this.#roles) || this.#isFull(share, this.#subscriptions)) return undefined;
      const started = share.turns.next((queue) => {
        const next = queue.next(now);
        if (next !== undefined) this.#running.set(next, { queue, share });
        else if (queue.readyAt === Number.POSITIVE_INFINITY) share.turns.delete(queue);
        else soonest = Math.min(soonest, queue.readyAt);
        return next;
      });
      if (share.turns.size === 0) this.turns.delete(share);
      if (started !== undefined) {
        share.running += 1;
        share.role.running += 1;
      }
      return started;
    });
    return step ?? { kind: "wait", waitMs: Math.max(0, soonest - now) };
  }

  /** Reports the outcome of a step. Required once for each started step, even if its queue was stopped or removed. */
  onOutcome(step: Step, outcome: Outcome, now: number): void {
    const running = this.#running.get(step);
    if (running === undefined) return;
    const { queue, share } = running;
    this.#running.delete(step);
    share.running -= 1;
    share.role.running -= 1;
    queue.onOutcome(step, outcome, now);
    this.#awaitTurn(queue, share);
  }

  /** Ends pauses that wait for Postgres, because it answers again. */
  wake(): void {
    for (const queue of this.members.keys()) queue.wake();
  }

  /** Makes all queues keep new messages without running them. */
  hold(): void {
    for (const queue of this.members.keys()) queue.hold();
  }

  /** Resolves when the queues have run everything they may run, or are stopped. */
  async drain(): Promise<void> {
    await Promise.all([...this.members.keys()].map((queue) => queue.drain()));
  }

  /** Starts no more steps. Called when this process stops leading or shuts down. */
  stop(): void {
    for (const queue of this.members.keys()) queue.stop();
  }

  #newShare(runAs: string): SubscriptionShare {
    const role = this.#roles.get(runAs) ?? { queues: 0, running: 0 };
    this.#roles.set(runAs, role);
    return { runAs, role, queues: 0, running: 0, turns: new RoundRobin() };
  }

  /** True if a role or subscription has all sessions that it may have: one is left for the others, if there are any. */
  #isFull({ running }: RoleShare | SubscriptionShare, all: ReadonlyMap<unknown, unknown>): boolean {
    return running >= (all.size > 1 ? Math.max(1, this.sessions - 1) : this.sessions);
  }

  /** Makes a queue wait for its turn, behind the others of its subscription, if it may have a step. */
  #awaitTurn(queue: SubscriptionQueue, share: SubscriptionShare): void {
    if (queue.readyAt < Number.POSITIVE_INFINITY) {
      share.turns.add(queue);
      this.turns.add(share);
    }
    this.onReady();
  }
}
