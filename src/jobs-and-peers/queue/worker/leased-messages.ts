/**
 * Messages of the queue that this process has taken and not handled: which of them starts next.
 *
 * Messages with the same key, place and role are handled one after another, in the order of their ranks; all others in parallel.
 * The topic with the fewest running messages is next, so that none waits for the backlog of another, or for its slow handlers. A message whose handler has a concurrency limit starts
 * only while the limit is not full.
 *
 * The row decides: a message is done when its row is deleted. One that fails is put off by an update of its row, which gives
 * it back with all that the process has of its key; whoever takes them next handles them in order. Until the store has
 * answered, nothing else of the key starts.
 */
import { type DeadMessage, type FailedAttempt, failedAttemptOf, type HandlerResult } from "../../channel/index.js";
import { type ConcurrencyLimit, type Limited, type Waiter, Waitlist } from "../../handlers/limits/concurrency-limit.js";
import type { TopicHandlers } from "../../handlers/topic-handlers.js";
import { keyOf, type QueuedMessage } from "../../store/index.js";

/** Side effects that {@link LeasedMessages} requests. */
export interface LeaseEffects extends Waiter {
  /** Deletes the row of a message that was handled outside of a transaction. Calls take effect in order. */
  complete(message: QueuedMessage): void;
  /**
   * Writes that the message waits for its retry. Answered by {@link LeasedMessages.onPutOff}.
   *
   * @param failure attempt that has failed; undefined if none counts
   */
  putOff(turn: LeasedTurn, delayMs: number, failure: FailedAttempt | undefined): void;
  /** Makes the message a dead letter. Answered by {@link LeasedMessages.onGivenUp}. */
  giveUp(turn: LeasedTurn, dead: Omit<DeadMessage, "message" | "failures">, failure: FailedAttempt | undefined): void;
}

/** Settings of the handlers of messages. */
export type LeaseLimits = Pick<TopicHandlers, "retryOf" | "limitOf">;

/** Messages that are handled one after another, and the one that runs. */
class Lane implements Limited {
  /** Undefined for a message without a key, which has a lane of its own. */
  readonly key: string | undefined;
  readonly queue: QueuedMessage[] = [];
  running: QueuedMessage | undefined;
  /** Number of starts of the message that runs, those before included. */
  attempts = 0;
  limit: ConcurrencyLimit | undefined;
  /** Time of the next start of a message that was postponed. */
  startsAt: number | undefined;

  constructor(key: string | undefined) {
    this.key = key;
  }
}

/** Place of a message in a lane: behind those with lower ranks, since a transaction may have committed late. */
function placeOf({ rank }: QueuedMessage, queue: readonly QueuedMessage[]): number {
  let at = queue.length;
  while (at > 0 && queue[at - 1]!.rank > rank) at -= 1;
  return at;
}

/** Message that starts now. Answer with {@link LeasedMessages.finish}. */
export type LeasedTurn = Lane & { readonly running: QueuedMessage };

export class LeasedMessages {
  /** Lanes with a message that can start, by topic, in the order of the topics' turns. */
  readonly #ready = new Map<string, Waitlist<Lane>>();
  readonly #keyed = new Map<string, Lane>();
  /** Lanes whose message was postponed. */
  readonly #postponed = new Set<Lane>();
  /** Messages that wait, and that run, by topic. */
  readonly #waiting = new Map<string, number>();
  readonly #running = new Map<string, number>();

  readonly #limits: LeaseLimits;
  readonly #effects: LeaseEffects;

  constructor(limits: LeaseLimits, effects: LeaseEffects) {
    this.#limits = limits;
    this.#effects = effects;
  }

  /** Number of messages that wait for their start. */
  get waiting(): number {
    let waiting = 0;
    for (const count of this.#waiting.values()) waiting += count;
    return waiting;
  }

  /** Number of messages of a topic that wait for their start. */
  waitingOf(topic: string): number {
    return this.#waiting.get(topic) ?? 0;
  }

  /** True if a message of the topic would be the next to start: of no other topic that has one fewer messages run. */
  wouldBeNext(topic: string): boolean {
    const running = this.#running.get(topic) ?? 0;
    for (const [other, lanes] of this.#ready)
      if (lanes.first !== undefined && (this.#running.get(other) ?? 0) < running) return false;
    return true;
  }

  /** Number of messages that could start now if handlers were free. */
  get startable(): number {
    let startable = 0;
    for (const lanes of this.#ready.values()) startable += lanes.startable;
    return startable;
  }

  /** Time of the next start of a postponed message; Infinity if there is none. */
  get deadline(): number {
    let deadline = Number.POSITIVE_INFINITY;
    for (const { startsAt } of this.#postponed) deadline = Math.min(deadline, startsAt!);
    return deadline;
  }

  /** Adds messages that were taken. */
  add(messages: readonly QueuedMessage[]): void {
    for (const message of messages) {
      const lane = this.#laneOf(message);
      const at = placeOf(message, lane.queue);
      if (at === 0) this.#unlist(lane);
      lane.queue.splice(at, 0, message);
      count(this.#waiting, message.topic, 1);
      this.#list(lane);
    }
  }

  /**
   * Adds a message that already runs: an earlier worker of this process has begun it, or a channel.
   *
   * @returns the turn to answer with {@link finish}; undefined if another message of its key runs
   */
  resume(message: QueuedMessage): LeasedTurn | undefined {
    const lane = this.#laneOf(message);
    if (lane.running !== undefined) return undefined;
    this.#unlist(lane);
    this.#begin(lane, message);
    return lane as LeasedTurn;
  }

  /** Lets postponed messages start whose time has come: from now on they count as startable, and not for {@link deadline}. */
  resumePostponed(now: number): void {
    for (const lane of this.#postponed) if (lane.startsAt! <= now) this.#resume(lane);
  }

  /** Starts the next message. Returns undefined if none can start. */
  take(now: number): LeasedTurn | undefined {
    this.resumePostponed(now);
    for (let topic = this.#nextTopic(); topic !== undefined; topic = this.#nextTopic()) {
      const lanes = this.#ready.get(topic)!;
      const lane = lanes.first!;
      const message = lane.queue[0]!;
      this.#unlist(lane);
      // The handler was replaced since the lane was listed.
      if (lane.limit !== this.#limits.limitOf(topic, message.headers)) {
        this.#list(lane);
        continue;
      }
      // Of topics with as many, the others go first.
      if (this.#ready.delete(topic) && lanes.size > 0) this.#ready.set(topic, lanes);
      lane.limit?.take();
      lane.queue.shift();
      count(this.#waiting, topic, -1);
      this.#begin(lane, message);
      return lane as LeasedTurn;
    }
    return undefined;
  }

  /** Topic with a message that can start, and the fewest that run. */
  #nextTopic(): string | undefined {
    let next: string | undefined;
    let fewest = Number.POSITIVE_INFINITY;
    for (const [topic, lanes] of this.#ready) {
      const running = this.#running.get(topic) ?? 0;
      if (running >= fewest || lanes.first === undefined) continue;
      [next, fewest] = [topic, running];
      if (running === 0) break;
    }
    return next;
  }

  /** Ends a message, or requests its retry. */
  finish(turn: LeasedTurn, result: HandlerResult, now: number): void {
    const { running: message, limit } = turn;
    count(this.#running, message.topic, -1);
    turn.limit = undefined;
    if (result.kind === "done") {
      if (result.isMarked !== true) this.#effects.complete(message);
      this.#end(turn);
    } else this.#finishUndone(turn, result, now);
    limit?.release(this.#effects, true);
  }

  #finishUndone(turn: LeasedTurn, result: Exclude<HandlerResult, { kind: "done" }>, now: number): void {
    const { running: message, attempts } = turn;
    const policy = this.#limits.retryOf(message.topic, message.headers);
    if (result.kind === "postponed") {
      turn.queue.unshift(message);
      count(this.#waiting, message.topic, 1);
      (turn as Lane).running = undefined;
      turn.startsAt = now + policy.delayMs(1);
      this.#postponed.add(turn);
      return;
    }
    const failure = failedAttemptOf(result, attempts);
    if (result.kind === "deferred") this.#effects.putOff(turn, result.delayMs, undefined);
    else if (result.kind !== "refused" && attempts < policy.attempts && failure !== undefined)
      this.#effects.putOff(turn, result.delayMs ?? policy.delayMs(attempts), failure);
    else {
      const { errorCode, errorMessage, stack, plain = message.payload } = result;
      const counted = Math.min(attempts, policy.attempts);
      // One that is exhausted was not begun again.
      const last = attempts > policy.attempts ? undefined : failure;
      this.#effects.giveUp(turn, { payload: plain, errorCode, errorMessage, attempts: counted, stack }, last);
    }
  }

  /** The message is a dead letter; the next one of its key may start. */
  onGivenUp(turn: LeasedTurn): void {
    this.#end(turn);
  }

  /** The message was put off: all that was taken of its key is free again. */
  onPutOff(turn: LeasedTurn): void {
    for (const message of turn.queue.splice(0)) count(this.#waiting, message.topic, -1);
    this.#end(turn);
  }

  /** Messages that wait for their start, in no order. */
  get messages(): QueuedMessage[] {
    return [...this.#lanes].flatMap(({ queue }) => queue);
  }

  get #lanes(): ReadonlySet<Lane> {
    const lanes = new Set([...this.#postponed, ...this.#keyed.values()]);
    for (const ready of this.#ready.values()) for (const lane of ready) lanes.add(lane);
    return lanes;
  }

  /** Forgets the messages that do not run, all or some, and returns them. */
  clear(of: (message: QueuedMessage) => boolean = () => true): QueuedMessage[] {
    const cleared: QueuedMessage[] = [];
    for (const lane of this.#lanes) {
      const [first] = lane.queue;
      const gone = lane.queue.filter(of);
      if (gone.length === 0) continue;
      this.#unlist(lane);
      const left = gone.length === lane.queue.length ? [] : lane.queue.filter((message) => !gone.includes(message));
      lane.queue.splice(0, lane.queue.length, ...left);
      for (const message of gone) count(this.#waiting, message.topic, -1);
      cleared.push(...gone);
      // Only the first one of a lane can be postponed.
      if (left[0] !== first) {
        this.#postponed.delete(lane);
        lane.startsAt = undefined;
      }
      if (left.length > 0) this.#list(lane);
      else if (lane.running === undefined && lane.key !== undefined) this.#keyed.delete(lane.key);
    }
    return cleared;
  }

  #begin(lane: Lane, message: QueuedMessage): void {
    lane.running = message;
    count(this.#running, message.topic, 1);
    const { topic, headers, failedAttempts, isSuspect, wasRunning } = message;
    lane.attempts = failedAttempts + 1;
    if (isSuspect && !wasRunning)
      lane.attempts = Math.min(lane.attempts, this.#limits.retryOf(topic, headers).attempts);
  }

  #end(lane: Lane): void {
    lane.running = undefined;
    if (lane.queue.length > 0) this.#list(lane);
    else if (lane.key !== undefined) this.#keyed.delete(lane.key);
  }

  #laneOf(message: QueuedMessage): Lane {
    if (message.lane === undefined) return new Lane(undefined);
    const id = keyOf(message);
    let lane = this.#keyed.get(id);
    if (lane === undefined) {
      lane = new Lane(id);
      this.#keyed.set(id, lane);
    }
    return lane;
  }

  #resume(lane: Lane): void {
    this.#postponed.delete(lane);
    lane.startsAt = undefined;
    this.#list(lane);
  }

  /** Lists a lane whose first message can start, under the limit of that message. */
  #list(lane: Lane): void {
    const [message] = lane.queue;
    if (message === undefined || lane.running !== undefined || lane.startsAt !== undefined) return;
    let lanes = this.#ready.get(message.topic);
    if (lanes === undefined) {
      lanes = new Waitlist(this.#effects);
      this.#ready.set(message.topic, lanes);
    }
    if (lanes.has(lane)) return;
    lane.limit = this.#limits.limitOf(message.topic, message.headers);
    lanes.add(lane);
  }

  #unlist(lane: Lane): void {
    const topic = lane.queue[0]?.topic;
    if (topic !== undefined) this.#ready.get(topic)?.delete(lane);
  }
}

/** Changes a topic's count. */
function count(counts: Map<string, number>, topic: string, change: number): void {
  const changed = (counts.get(topic) ?? 0) + change;
  if (changed > 0) counts.set(topic, changed);
  else counts.delete(topic);
}
