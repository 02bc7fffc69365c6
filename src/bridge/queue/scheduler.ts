/**
 * Shares a number of database sessions among subscriptions: each that has a step gets one in its turn, so that one with many
 * messages, one that pauses, or a stream with many queues does not keep the others waiting. A role never has all of them,
 * however many queues it has, as long as there is another role, and so it is with a subscription: its functions may all wait
 * for one lock. Pure: it runs nothing itself and has no clock.
 */
import { Fifo } from "../../runtime/index.js";
import type { Outcome, RequestedRetry, Step } from "./steps.js";
import type { SubscriptionQueue } from "./subscription-queue.js";

/** There is nothing to do now. */
export interface Wait {
  readonly kind: "wait";
  /** Ask again after this time; Infinity: not before {@link QueueScheduler.onReady} was called. */
  readonly waitMs: number;
}

/** What queues of one role, or of one subscription, have out, and those of them that wait until that is less. */
interface Share {
  /** Those of all roles, or of all subscriptions. */
  readonly among: ReadonlyMap<unknown, Share>;
  queues: number;
  running: number;
  readonly held: Fifo<SubscriptionQueue>;
}

export class QueueScheduler {
  /** Called when {@link next} may have a step where it had none. Set by the owner. */
  onReady: () => void = () => undefined;
  protected readonly members = new Set<SubscriptionQueue>();
  /** In the order of their turns: of each subscription one at a time. */
  protected readonly turns = new Fifo<SubscriptionQueue>();
  protected readonly pausing = new Set<SubscriptionQueue>();
  /** Those in {@link turns} or {@link pausing}. */
  readonly #waiting = new Set<SubscriptionQueue>();
  /** Of each subscription in {@link turns}, the queues that follow. */
  readonly #following = new Map<bigint, Fifo<SubscriptionQueue>>();
  readonly #out = new Map<Step, { readonly queue: SubscriptionQueue; readonly shares: readonly Share[] }>();
  readonly #roles = new Map<string, Share>();
  readonly #subscriptions = new Map<bigint, Share>();
  /** Subscriptions of which queues wait until less of it is out. */
  readonly #heldBack = new Set<Share>();
  /** Those of the role and of the subscription of each member, as it was when it was added. */
  readonly #shares = new Map<SubscriptionQueue, readonly Share[]>();

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
    const { runAs, id } = queue.subscription;
    this.#shares.set(queue, [shareOf(this.#roles, runAs), shareOf(this.#subscriptions, id)]);
    queue.onReady = () => this.#enqueue(queue);
    this.#enqueue(queue);
  }

  /** Closes the queue. A step of it that is out has its session until it is settled. */
  remove(queue: SubscriptionQueue): void {
    if (this.members.delete(queue)) {
      const { runAs, id } = queue.subscription;
      this.#leave(this.#roles, runAs);
      this.#leave(this.#subscriptions, id);
    }
    this.#shares.delete(queue);
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
      this.#awaitTurn(queue);
    }
    for (let queue = this.#takeTurn(); queue !== undefined; queue = this.#takeTurn()) {
      const shares = this.#shares.get(queue) ?? [];
      const full = shares.find((share) => share.running >= this.#mostOf(share));
      if (full !== undefined) {
        full.held.push(queue);
        if (full.among === this.#subscriptions) this.#heldBack.add(full);
        continue;
      }
      const step = queue.next(now);
      if (step !== undefined) {
        this.#waiting.delete(queue);
        for (const share of shares) share.running += 1;
        this.#out.set(step, { queue, shares });
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
    const { queue, shares } = settled;
    this.#out.delete(step);
    for (const share of shares) share.running -= 1;
    queue.settle(step, outcome, now);
    this.#enqueue(queue);
  }

  /** Subscriptions with dead letters that are being tried again. */
  get retrying(): readonly bigint[] {
    return [...this.members].filter(({ isRetrying }) => isRetrying).map(({ subscription }) => subscription.id);
  }

  /** Hands dead letters that are to be tried again to the first queue of their subscription. */
  retry(requested: readonly RequestedRetry[]): void {
    const first = new Map([...this.members].reverse().map((queue) => [queue.subscription.id, queue]));
    for (const { subscriptionId, message } of requested) first.get(subscriptionId)?.retry(message);
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

  /** How many steps of one role, or of one subscription, may be out: one session is left for the others, if there are any. */
  #mostOf({ among }: Share): number {
    return among.size > 1 ? Math.max(1, this.sessions - 1) : this.sessions;
  }

  #leave<K>(shares: Map<K, Share>, key: K): void {
    const share = shares.get(key);
    if (share === undefined || --share.queues > 0) return;
    shares.delete(key);
    this.#heldBack.delete(share);
    for (let held = share.held.shift(); held !== undefined; held = share.held.shift()) this.#waiting.delete(held);
  }

  /** The queue whose turn it is: first those that were held back until their role has a session again. */
  #takeTurn(): SubscriptionQueue | undefined {
    for (const role of this.#roles.values()) {
      if (role.held.length > 0 && role.running < this.#mostOf(role)) return role.held.shift();
    }
    for (const share of this.#heldBack) {
      const first = share.held.at(0)!;
      if (share.running >= this.#mostOf(share) || this.#following.has(first.subscription.id)) continue;
      share.held.shift();
      if (share.held.length === 0) this.#heldBack.delete(share);
      this.#queueUp(first);
    }
    const queue = this.turns.shift();
    if (queue === undefined) return undefined;
    const { id } = queue.subscription;
    const next = this.#following.get(id)?.shift();
    if (next === undefined) this.#following.delete(id);
    else this.turns.push(next);
    return queue;
  }

  /** Behind those of its subscription that were held back: a queue that always has messages would keep them waiting. */
  #awaitTurn(queue: SubscriptionQueue): void {
    const share = this.#subscriptions.get(queue.subscription.id);
    if (share !== undefined && share.held.length > 0) share.held.push(queue);
    else this.#queueUp(queue);
  }

  /** Its turn is behind those of all other subscriptions that wait for one. */
  #queueUp(queue: SubscriptionQueue): void {
    const { id } = queue.subscription;
    const following = this.#following.get(id);
    if (following !== undefined) {
      following.push(queue);
      return;
    }
    this.#following.set(id, new Fifo());
    this.turns.push(queue);
  }

  /** Puts the queue behind all that wait for a turn. */
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
  if (share === undefined) shares.set(key, (share = { among: shares, queues: 0, running: 0, held: new Fifo() }));
  share.queues += 1;
  return share;
}
