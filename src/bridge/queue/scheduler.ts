/**
 * Shares the database sessions among subscriptions in a round robin, so that a subscription with many messages, with
 * pauses, or with many queues (a stream) does not delay the others. While there are several roles, one role never has
 * all of several sessions, however many queues it has. While there are several subscriptions, one never has all
 * sessions either, because its functions may all wait for the same lock. Pure: no I/O and no clock.
 */
import { Fifo } from "../../runtime/index.js";
import type { Outcome, RequestedRetry, Step } from "./steps.js";
import type { SubscriptionQueue } from "./subscription-queue.js";

/** No step can start now. */
export interface Wait {
  readonly kind: "wait";
  /** Time until the next call of {@link QueueScheduler.next}; Infinity: not before {@link QueueScheduler.onReady}. */
  readonly waitMs: number;
}

/** Sessions used by the queues of one role or subscription, and its queues that wait for a session. */
interface Share {
  /** All shares of the same kind: those of roles, or those of subscriptions. */
  readonly siblings: ReadonlyMap<unknown, Share>;
  queues: number;
  running: number;
  readonly blocked: Fifo<SubscriptionQueue>;
}

export class QueueScheduler {
  /** Called when {@link next} may return a step again. Set by the owner. */
  onReady: () => void = () => undefined;
  protected readonly members = new Set<SubscriptionQueue>();
  /** Ready queues in round robin, at most one of each subscription. */
  protected readonly turns = new Fifo<SubscriptionQueue>();
  protected readonly pausing = new Set<SubscriptionQueue>();
  /** Queues that wait: in {@link turns}, #following or {@link pausing}, or blocked. They are not enqueued again. */
  readonly #waiting = new Set<SubscriptionQueue>();
  /** Further ready queues of each subscription in {@link turns}. */
  readonly #following = new Map<bigint, Fifo<SubscriptionQueue>>();
  readonly #running = new Map<Step, { readonly queue: SubscriptionQueue; readonly shares: readonly Share[] }>();
  readonly #roles = new Map<string, Share>();
  readonly #subscriptions = new Map<bigint, Share>();
  /** Shares of subscriptions with blocked queues. */
  readonly #blockedSubscriptions = new Set<Share>();
  /** Shares of each queue's role and subscription. The role is that of the time when the queue was added. */
  readonly #shares = new Map<SubscriptionQueue, readonly Share[]>();

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
    this.members.add(queue);
    const { runAs, id } = queue.subscription;
    this.#shares.set(queue, [shareOf(this.#roles, runAs), shareOf(this.#subscriptions, id)]);
    queue.onReady = () => this.#enqueue(queue);
    this.#enqueue(queue);
  }

  /** Removes and closes the queue. A running step keeps its session until its outcome is reported. */
  remove(queue: SubscriptionQueue): void {
    if (this.members.delete(queue)) {
      const { runAs, id } = queue.subscription;
      this.#removeFrom(this.#roles, runAs);
      this.#removeFrom(this.#subscriptions, id);
    }
    this.#shares.delete(queue);
    if (this.pausing.delete(queue)) this.#waiting.delete(queue);
    queue.onReady = () => undefined;
    queue.close();
  }

  /** Starts the next step of some queue, or returns the time to wait. */
  next(now: number): Step | Wait {
    if (this.#running.size >= this.sessions) return forever;
    for (const queue of this.pausing) {
      if (queue.readyAt > now) continue;
      this.pausing.delete(queue);
      this.#awaitTurn(queue);
    }
    for (let queue = this.#takeTurn(); queue !== undefined; queue = this.#takeTurn()) {
      const shares = this.#shares.get(queue) ?? [];
      const full = shares.find((share) => share.running >= this.#limitOf(share));
      if (full !== undefined) {
        full.blocked.push(queue);
        if (full.siblings === this.#subscriptions) this.#blockedSubscriptions.add(full);
        continue;
      }
      const step = queue.next(now);
      if (step !== undefined) {
        this.#waiting.delete(queue);
        for (const share of shares) share.running += 1;
        this.#running.set(step, { queue, shares });
        return step;
      }
      if (queue.readyAt < Number.POSITIVE_INFINITY) this.pausing.add(queue);
      else this.#waiting.delete(queue);
    }
    let soonest = Number.POSITIVE_INFINITY;
    for (const { readyAt } of this.pausing) soonest = Math.min(soonest, readyAt);
    return soonest === Number.POSITIVE_INFINITY ? forever : { kind: "wait", waitMs: Math.max(0, soonest - now) };
  }

  /** Reports the outcome of a step. Required once for each started step, even if its queue was stopped or removed. */
  onOutcome(step: Step, outcome: Outcome, now: number): void {
    const running = this.#running.get(step);
    if (running === undefined) return;
    const { queue, shares } = running;
    this.#running.delete(step);
    for (const share of shares) share.running -= 1;
    queue.onOutcome(step, outcome, now);
    this.#enqueue(queue);
  }

  /** Subscriptions with dead letters that are being retried. */
  get retrying(): readonly bigint[] {
    return [...this.members].filter(({ isRetrying }) => isRetrying).map(({ subscription }) => subscription.id);
  }

  /** Queues dead letters for a retry in the first queue of their subscription. */
  retry(requested: readonly RequestedRetry[]): void {
    const first = new Map([...this.members].reverse().map((queue) => [queue.subscription.id, queue]));
    for (const { subscriptionId, message } of requested) first.get(subscriptionId)?.retry(message);
  }

  /** Ends pauses that wait for Postgres, because it answers again. */
  wake(): void {
    for (const queue of this.members) queue.wake();
  }

  /** Makes all queues keep new messages without running them. */
  hold(): void {
    for (const queue of this.members) queue.hold();
  }

  /** Resolves when the queues have run everything they may run: true, or false if one was stopped before. */
  async drain(): Promise<boolean> {
    return (await Promise.all([...this.members].map((queue) => queue.drain()))).every((done) => done);
  }

  /** Starts no more steps. Called when this process stops leading or shuts down. */
  stop(): void {
    for (const queue of this.members) queue.stop();
  }

  /** Maximum of concurrent steps of a share: one session is left for others, if there are any. */
  #limitOf({ siblings }: Share): number {
    return siblings.size > 1 ? Math.max(1, this.sessions - 1) : this.sessions;
  }

  #removeFrom<K>(shares: Map<K, Share>, key: K): void {
    const share = shares.get(key);
    if (share === undefined || --share.queues > 0) return;
    shares.delete(key);
    this.#blockedSubscriptions.delete(share);
    for (let queue = share.blocked.shift(); queue !== undefined; queue = share.blocked.shift()) {
      this.#waiting.delete(queue);
    }
  }

  /** Removes and returns the next queue. Queues that were blocked by the limit of their role come first. */
  #takeTurn(): SubscriptionQueue | undefined {
    for (const role of this.#roles.values()) {
      if (role.blocked.length > 0 && role.running < this.#limitOf(role)) return role.blocked.shift();
    }
    for (const share of this.#blockedSubscriptions) {
      const first = share.blocked.at(0)!;
      if (share.running >= this.#limitOf(share) || this.#following.has(first.subscription.id)) continue;
      share.blocked.shift();
      if (share.blocked.length === 0) this.#blockedSubscriptions.delete(share);
      this.#appendTurn(first);
    }
    const queue = this.turns.shift();
    if (queue === undefined) return undefined;
    const { id } = queue.subscription;
    const next = this.#following.get(id)?.shift();
    if (next === undefined) this.#following.delete(id);
    else this.turns.push(next);
    return queue;
  }

  /** Lets blocked queues of the same subscription go first; a queue that always has messages would starve them. */
  #awaitTurn(queue: SubscriptionQueue): void {
    const share = this.#subscriptions.get(queue.subscription.id);
    if (share !== undefined && share.blocked.length > 0) share.blocked.push(queue);
    else this.#appendTurn(queue);
  }

  /** Appends the queue to the round robin, behind the ready queues of its subscription. */
  #appendTurn(queue: SubscriptionQueue): void {
    const { id } = queue.subscription;
    const following = this.#following.get(id);
    if (following !== undefined) {
      following.push(queue);
      return;
    }
    this.#following.set(id, new Fifo());
    this.turns.push(queue);
  }

  /** Makes a ready queue wait for its turn. */
  #enqueue(queue: SubscriptionQueue): void {
    if (!this.#waiting.has(queue) && queue.readyAt < Number.POSITIVE_INFINITY) {
      this.#waiting.add(queue);
      this.#awaitTurn(queue);
    }
    this.onReady();
  }
}

const forever: Wait = { kind: "wait", waitMs: Number.POSITIVE_INFINITY };

function shareOf<K>(shares: Map<K, Share>, key: K): Share {
  let share = shares.get(key);
  if (share === undefined) shares.set(key, (share = { siblings: shares, queues: 0, running: 0, blocked: new Fifo() }));
  share.queues += 1;
  return share;
}
