/**
 * Number of messages that a worker of the queue takes, and of which topics: as many as its handlers can start now or soon, so
 * that a slow peer leaves the rest to others. Of a topic with limits, where taking is starting, only those that can start now.
 */
import type { Clock } from "../../../foundation/runtime/index.js";
import type { Dispatcher } from "../../handlers/dispatcher.js";
import type { ConcurrencyLimit } from "../../handlers/limits/concurrency-limit.js";
import { groupLeastUnderWay, Pace } from "../../handlers/pace.js";
import type { TopicHandlers } from "../../handlers/topic-handlers.js";
import type { WorkerEffects } from "./effects.js";
import type { LeasedMessages } from "./leased-messages.js";
import type { Take, TakePlan } from "./take-plan.js";

/** Maximum number of messages of one statement. */
const mostTaken = 1_000;

export class TakeRoom {
  readonly #dispatcher: Dispatcher;
  readonly #handlers: TopicHandlers;
  readonly #clock: Clock;
  readonly #pace = new Pace();
  readonly #limitPaces = new WeakMap<ConcurrencyLimit, Pace>();
  /** Number of messages that wait in a batch, by topic. They occupy no slot. */
  readonly #inBatches = new Map<string, number>();

  constructor({ dispatcher, handlers, clock }: Pick<WorkerEffects, "dispatcher" | "handlers" | "clock">) {
    this.#dispatcher = dispatcher;
    this.#handlers = handlers;
    this.#clock = clock;
  }

  /** Notes that a handler has ended. */
  ended(limit: ConcurrencyLimit | undefined, now: number): void {
    this.#pace.handled(1, now);
    if (limit !== undefined) this.#paceUnder(limit).handled(1, now);
  }

  /** Notes that a message waits in a batch (1), or waits no more (-1). */
  inBatch(topic: string, change: 1 | -1): void {
    this.#inBatches.set(topic, (this.#inBatches.get(topic) ?? 0) + change);
  }

  /**
   * Topics to take from: those whose messages have the slots alone as a limit, or one that has others. None: not now.
   *
   * @param hasReserved true if a slot is kept for a topic with limits
   */
  next(plan: TakePlan, leased: LeasedMessages, hasReserved: boolean): Take {
    const topics: string[] = [];
    const now = this.#clock.now();
    const { free } = this.#dispatcher;
    const recent = this.#pace.recent(now);
    const shared = roomFor(leased.startable, free, recent);
    // A topic that has none here does not wait for the backlog of others.
    const alone = Math.max(shared, roomFor(0, free, recent));
    let mostOfAll = 0;
    for (const topic of plan.wanted) {
      if (!this.#handlers.serves(topic)) {
        plan.wanted.delete(topic);
        continue;
      }
      if (this.#handlers.isPaused(topic) || plan.isWaiting(topic, now)) continue;
      const room = leased.waitingOf(topic) === 0 ? alone : shared;
      const startable = this.#ownRoom(leased, topic, room);
      const own = plan.isLimited(topic) ? this.#limitedRoom(leased, topic, startable, hasReserved ? 1 : 0) : startable;
      const most = own ?? room;
      if (most < 1 || (own !== undefined && topics.length > 0)) continue;
      plan.wanted.delete(topic);
      topics.push(topic);
      mostOfAll = Math.max(mostOfAll, most);
      if (own !== undefined) return { topics, most: Math.min(most, mostTaken) };
    }
    return { topics, most: Math.min(mostOfAll, mostTaken) };
  }

  /** Room of a topic whose messages are handled in batches, or under limits; undefined for others. */
  #ownRoom(leased: LeasedMessages, topic: string, room: number): number | undefined {
    const has = leased.waitingOf(topic);
    const batches = this.#handlers.batchRoomOf(topic);
    if (batches > 0) return batches - has - (this.#inBatches.get(topic) ?? 0);
    const limits = this.#handlers.limitsOf(topic);
    return limits && Math.min(room, roomFor(has, ...this.#roomUnder(limits)));
  }

  /** Room of a topic with limits: as many messages as can start now. @param own its room by itself */
  #limitedRoom(leased: LeasedMessages, topic: string, own: number | undefined, reserved: number): number {
    if (this.#handlers.batchRoomOf(topic) > 0) return own!;
    const limits = this.#handlers.limitsOf(topic);
    const free = limits === undefined ? Number.POSITIVE_INFINITY : this.#roomUnder(limits)[0];
    const slots = Math.max(this.#dispatcher.free + reserved - leased.startable, reserved);
    return Math.min(slots, free - leased.waitingOf(topic));
  }

  #roomUnder(limits: readonly ConcurrencyLimit[]): [free: number, recent: number] {
    const now = this.#clock.now();
    let [free, recent] = [0, 0];
    for (const limit of limits) {
      free += limit.free;
      recent += this.#paceUnder(limit).recent(now);
    }
    return [free, recent];
  }

  #paceUnder(limit: ConcurrencyLimit): Pace {
    let pace = this.#limitPaces.get(limit);
    if (pace === undefined) {
      pace = new Pace();
      this.#limitPaces.set(limit, pace);
    }
    return pace;
  }
}

/**
 * Number of messages to take: those that can start now, or will be the next to start.
 *
 * @param has number of messages that can start
 * @param recent number of messages that ended recently
 */
function roomFor(has: number, free: number, recent: number): number {
  const next = Math.max(groupLeastUnderWay - 1, recent);
  return has > free + next / 2 ? 0 : free + next - has;
}
