/**
 * Schedules the accepted and unfinished messages of a listener's channel.
 *
 * Messages with the same key are handled one after another, and so are messages without a key: they are in a {@link Lane}.
 * Messages of different lanes run in parallel. The cursor moves over a message when all messages before it have ended, too.
 *
 * A message ends here when its handler is done. Every other message *leaves*: it becomes a row of the queue, or a dead letter, in
 * the transaction that commits a cursor beyond it. What may leave:
 *
 * - a message that its handler has not done: the queue tries it again;
 * - a message that the queue is to handle ({@link ListenerLimits.leaves}), such as one of a transactional handler;
 * - after an unclean exit, the first messages: one of them may have ended the process;
 * - a message in front of others that ended some time ago, so that these are not handled again if the process is killed. If its
 *   handler runs, this process has the row, and the handler's end is that of the row.
 *
 * Behind a message that has left, all messages of its lane leave, until the queue has no rows of the lane any more. So the order of a lane
 * holds.
 *
 * A message whose handler has a concurrency limit starts only while the limit is not full, also where messages start
 * one after another. Lanes that wait for a full limit hold up no other lanes.
 */
import { shortened } from "../../foundation/errors/index.js";
import { Fifo } from "../../foundation/runtime/index.js";
import { type ConcurrencyLimit, type Limited, Waitlist } from "../handlers/limits/concurrency-limit.js";
import type { HandlerResult, ListenerEffects, ListenerLimits } from "./effects.js";
import {
  comparePositions,
  type FailedAttempt,
  type IncomingMessage,
  type LeavingMessage,
  memoryBytes,
  type Position,
} from "./messages.js";

/** Number of failed attempts that a dead letter keeps, the last ones. */
export const deadLetterFailures = 16;
/** Maximum bytes of the error message that a dead letter keeps per attempt. */
export const deadLetterFailureBytes = 512;

/**
 * Place of a message in the order of acceptance, kept until all earlier messages have ended. A message that has ended keeps only its
 * position, one that leaves all of it.
 */
interface AcceptedEntry {
  /** Undefined for an at-most-once message, which the cursor does not know. */
  readonly position: Position | undefined;
  readonly lane: Lane;
  message: IncomingMessage | undefined;
  leaving: LeavingMessage | undefined;
}

type LeavingEntry = AcceptedEntry & { readonly position: Position; readonly leaving: LeavingMessage };

/** Queue of messages that are handled one after another, and its current message. */
export class Lane implements Limited {
  /** Undefined for messages without a key. */
  readonly key: string | undefined;
  readonly queue = new Fifo<AcceptedEntry>();
  /** Message in the handler. */
  running: IncomingMessage | undefined;
  place: AcceptedEntry | undefined;
  /** Number of this start of a message. The queue counts further ones. */
  readonly attempts = 1;
  /** Limit of the message that runs, or that can start. */
  limit: ConcurrencyLimit | undefined;
  /** True while the lane waits for the start of its first message. */
  isListed = false;
  /** `left`: the queue has, or gets, rows of the lane; `asking`: it may have some from before the channel was opened. */
  state: "here" | "asking" | "left";
  /** Number of its messages that leave, and whose commit is not confirmed. */
  uncommitted = 0;

  constructor(key: string | undefined, state: Lane["state"]) {
    this.key = key;
    this.state = state;
  }
}

type HandlingEffects = Pick<ListenerEffects, "commit" | "mayGoOn" | "askLanes" | "run" | "limitFreed">;

/** Message that starts now. Answer with `finish`. */
export type StartedMessage = Lane & { readonly running: IncomingMessage; readonly place: AcceptedEntry };

export class Handling {
  /** Memory in bytes of messages that wait for the handler, or whose leaving is not committed. */
  queuedBytes = 0;
  /** Number of these messages. */
  queued = 0;
  /** Committed cursor. Never moves back. */
  cursor: Position;
  /** Last position up to which all messages have ended. Its cursor commit is pending. */
  handled: Position;
  /** Time of the last progress in ms: a handler ended, or one started while none ran. */
  progressAt = 0;
  /** Number of running handlers, without those whose messages have left. */
  running = 0;
  /** Lane of messages without a key. */
  readonly #plain: Lane;
  readonly #keyed = new Map<string, Lane>();
  /** Lanes with a key whose first message can start now. */
  readonly #ready: Waitlist<Lane>;
  /** Alternates between lanes with and without a key. */
  #plainIsNext = true;
  /** Accepted messages in order, from the first unfinished one. */
  readonly #order = new Fifo<AcceptedEntry>();
  /** Number of messages in {@link #order} that have ended or leave. */
  #ended = 0;
  /** Messages that leave with a cursor whose commit is not confirmed, in order. */
  readonly #leaving = new Fifo<LeavingEntry>();
  /** Number of the next messages that may have ended the process before. */
  #suspects: number;
  /** True while the queue may have rows from before the channel was opened. */
  #mayHaveRows: boolean;
  /** True if the queue may have, or get, rows of topics of which all messages leave, and which hold up no lane here. */
  #hasLeftTopics: boolean;
  /** Lanes that have left, or may have. */
  readonly #away = new Set<Lane>();
  /** Lanes that the store was asked for. */
  #asked: Set<Lane> | undefined;
  /** True if handlers have changed since the store was asked, so that its answer is about other topics. */
  #isAskedInVain = false;
  #askAt = Infinity;
  #askEveryMs: number;
  /** Message that had ended behind an unfinished one at some time, and when what is before it leaves. */
  #behind: { readonly entry: AcceptedEntry; readonly at: number } | undefined;
  #isClosed = false;

  readonly #limits: ListenerLimits;
  readonly #effects: HandlingEffects;

  constructor(cursor: Position, limits: ListenerLimits, effects: HandlingEffects) {
    this.#limits = limits;
    this.#effects = effects;
    this.#ready = new Waitlist(effects);
    this.cursor = cursor;
    this.handled = cursor;
    this.#suspects = limits.suspects;
    this.#mayHaveRows = limits.hasRows;
    this.#hasLeftTopics = limits.hasRows;
    this.#askEveryMs = limits.askLeastMs;
    this.#plain = new Lane(undefined, "here");
    if (limits.hasRows) this.#ask(this.#plain);
  }

  /** True if {@link take} can return a message. */
  get canTake(): boolean {
    return this.#ready.first !== undefined || this.#isStartable(this.#plain);
  }

  /** True if no message waits, runs or leaves, and a message without a key may start. */
  get isIdle(): boolean {
    if (this.#order.length + this.queued + this.running > 0) return false;
    return this.#plain.state === "here" && this.#plain.running === undefined && this.#suspects === 0;
  }

  /** Records messages that were handled one after another while {@link isIdle}. @param last position of the last message */
  passedThrough(last: Position | undefined, count: number, now: number): void {
    this.progressAt = now;
    if (last === undefined || count === 0) return;
    this.handled = last;
    this.#effects.commit(last, []);
  }

  /** Queues an accepted message. */
  push(message: IncomingMessage, now: number): void {
    const { position } = message;
    const lane = this.#laneOf(message);
    const entry: AcceptedEntry = { position, lane, message, leaving: undefined };
    if (position !== undefined) this.#order.push(entry);
    this.#count(message, 1);
    const isSuspect = position !== undefined && this.#suspects > 0;
    if (isSuspect) this.#suspects -= 1;
    // An at-most-once message has no order with others that have left.
    const leaves = position === undefined ? false : this.#limits.leaves(message);
    if (position !== undefined && (isSuspect || lane.state === "left" || leaves !== false)) {
      this.#leave(entry, { isSuspect }, leaves !== "topic");
      this.#leaveBehind(lane);
      this.#advance(now);
      return;
    }
    lane.queue.push(entry);
    if (lane.queue.length === 1 && this.#isReady(lane)) this.#list(lane);
  }

  /** Starts the next message. Returns undefined if none can start. */
  take(now: number): StartedMessage | undefined {
    const lane = this.#next();
    const entry = lane?.queue.at(0);
    if (lane === undefined || entry?.message === undefined) return undefined;
    this.#unlist(lane);
    lane.limit?.take();
    lane.queue.shift();
    lane.place = entry;
    lane.running = entry.message;
    this.#count(entry.message, -1);
    if (this.running === 0) this.progressAt = now;
    this.running += 1;
    return lane as StartedMessage;
  }

  /** Waits for no limit any more. Messages must not start after this call. */
  close(): void {
    this.#unlist(this.#plain);
    this.#ready.clear();
    this.#isClosed = true;
  }

  /**
   * Ends the handler of a message. A numbered message that is not done leaves. Of a message that has left meanwhile, only the handler ends.
   */
  finish(turn: StartedMessage, result: HandlerResult, now: number): void {
    const { place } = turn;
    const { message, position } = place;
    this.#end(turn);
    if (message === undefined) {
      this.#relist(turn);
      this.#askSoon(now);
      return;
    }
    this.running -= 1;
    this.progressAt = now;
    if (position !== undefined && result.kind !== "done") {
      this.#count(message, 1);
      const outcome = this.#outcomeOf(turn, message, result, now);
      this.#leave(place, outcome, result.kind !== "postponed" || this.#limits.leaves(message) !== "topic");
    } else if (position === undefined && result.kind === "postponed") {
      // Behind those that have come since: such messages have no order.
      this.#count(message, 1);
      turn.queue.push({ ...place });
    } else {
      place.message = undefined;
      if (position !== undefined) this.#ended += 1;
    }
    this.#leaveBehind(turn);
    this.#relist(turn);
    // A lane is not asked for while one of its handlers runs.
    if (turn.state !== "here") this.#askSoon(now);
    this.#advance(now);
  }

  /**
   * Has all messages leave that are in front of one that has ended: before the channel is closed in good order. What runs leaves as no
   * attempt.
   */
  leaveUnfinished(now: number): void {
    let last: AcceptedEntry | undefined;
    for (const entry of this.#order) if (hasEnded(entry)) last = entry;
    if (last !== undefined) this.#leaveBefore(last, false, now);
  }

  /** Records a committed cursor. @returns the messages that have left with it; undefined if the cursor was already known */
  committed(cursor: Position, now: number): readonly IncomingMessage[] | undefined {
    if (comparePositions(cursor, this.cursor) <= 0) return undefined;
    this.cursor = cursor;
    const left: IncomingMessage[] = [];
    for (let first = this.#leaving.at(0); first !== undefined; first = this.#leaving.at(0)) {
      if (comparePositions(first.position, cursor) > 0) break;
      this.#leaving.shift();
      const { message } = first.leaving;
      left.push(message);
      this.#count(message, -1);
      first.lane.uncommitted -= 1;
      this.#forget(first.lane);
    }
    if (left.length > 0) this.#askSoon(now);
    return left;
  }

  /** Time at which messages leave that others wait behind, in ms; Infinity if there are none. */
  get leavesAt(): number {
    return this.#behind?.at ?? Infinity;
  }

  /** Time of the next {@link tick} that has something to do, in ms; Infinity if there is none. */
  get deadline(): number {
    return Math.min(this.leavesAt, this.#asked === undefined ? this.#askAt : Infinity);
  }

  /** Has messages leave that others wait behind, if it is time. */
  leaveDue(now: number): void {
    const behind = this.#behind;
    if (behind === undefined || now < behind.at) return;
    this.#behind = undefined;
    this.#leaveBefore(behind.entry, true, now);
  }

  /** Has messages leave that others wait behind, and asks for lanes that have left. */
  tick(now: number): void {
    this.leaveDue(now);
    if (now >= this.#askAt && this.#asked === undefined) this.#askNow();
  }

  /**
   * Answer of the store about lanes.
   *
   * @param left those of which the queue has rows; undefined if the store has not answered
   * @param hasRows whether it has any of this channel
   * @returns true if a message can start that could not before
   */
  onLanes(left: ReadonlySet<string | undefined> | undefined, hasRows: boolean, now: number): boolean {
    const asked = this.#asked ?? new Set();
    this.#asked = undefined;
    if (left === undefined || this.#isAskedInVain) {
      this.#isAskedInVain = false;
      this.#askSoon(now);
      return false;
    }
    if (!hasRows) this.#mayHaveRows = false;
    let mayStart = false;
    for (const lane of asked) {
      if (left.has(lane.key)) {
        // Behind the others, as not all may be asked for at once.
        this.#away.delete(lane);
        this.#away.add(lane);
        lane.state = "left";
        this.#leaveBehind(lane);
      } else {
        this.#away.delete(lane);
        lane.state = "here";
        this.#relist(lane);
        mayStart = true;
      }
    }
    this.#advance(now);
    this.#askEveryMs = mayStart ? this.#limits.askLeastMs : Math.min(this.#askEveryMs * 2, this.#limits.askMostMs);
    this.#askSoon(now);
    return mayStart;
  }

  #count(message: IncomingMessage, change: 1 | -1): void {
    this.queued += change;
    this.queuedBytes += change * memoryBytes(message, this.#limits.messageOverheadBytes);
  }

  /** Outcome of a message that its handler has not done: a later attempt, or a dead letter. */
  #outcomeOf(
    { attempts }: StartedMessage,
    message: IncomingMessage,
    result: Exclude<HandlerResult, { kind: "done" }>,
    now: number,
  ): Partial<LeavingMessage> {
    if (result.kind === "postponed") return {};
    const { plain } = result;
    if (result.kind === "deferred") return { plain, dueAt: now + result.delayMs };
    const policy = this.#limits.retryOf(message);
    const failure = failedAttemptOf(result, attempts);
    const failures = failure === undefined ? [] : [failure];
    if (result.kind !== "refused" && policy.attempts > attempts) {
      return { plain, attempts, failures, dueAt: now + (result.delayMs ?? policy.delayMs(attempts)) };
    }
    const { errorCode, errorMessage, stack } = result;
    return { plain, attempts, failures, dead: { errorCode, errorMessage, stack } };
  }

  /** @param withLane true if all messages of its lane leave behind it */
  #leave(entry: AcceptedEntry, outcome: Partial<LeavingMessage>, withLane = true): void {
    const { lane } = entry;
    const message = entry.message as LeavingMessage["message"];
    entry.leaving = {
      ...{ message, key: lane.key, plain: undefined, attempts: 0, failures: [], dueAt: undefined },
      ...{ isSuspect: false, turn: undefined, dead: undefined },
      ...outcome,
    };
    entry.message = undefined;
    this.#ended += 1;
    lane.uncommitted += 1;
    // What the store is just being asked for does not know of it.
    this.#asked?.delete(lane);
    if (!withLane) this.#hasLeftTopics = true;
    // Behind a dead letter its lane goes on.
    else if (entry.leaving.dead === undefined) this.#turnAway(lane);
  }

  #turnAway(lane: Lane): void {
    if (lane.state === "left") return;
    lane.state = "left";
    this.#relist(lane);
    this.#away.add(lane);
    this.#askEveryMs = this.#limits.askLeastMs;
  }

  /** Has the messages of a lane leave that wait behind one that has. At-most-once messages stay. */
  #leaveBehind(lane: Lane): void {
    if (lane.state !== "left" || lane.queue.length === 0) return;
    const stay: AcceptedEntry[] = [];
    for (let entry = lane.queue.shift(); entry !== undefined; entry = lane.queue.shift()) {
      if (entry.position === undefined) stay.push(entry);
      else this.#leave(entry, {});
    }
    for (const entry of stay) lane.queue.push(entry);
    this.#relist(lane);
  }

  /**
   * Has the unfinished messages leave that are in front of `until`.
   *
   * @param goesOn true if those in handlers leave as rows that this process has
   */
  #leaveBefore(until: AcceptedEntry, goesOn: boolean, now: number): void {
    const lanes = new Set<Lane>();
    for (const entry of this.#order) {
      if (entry === until) break;
      const { lane, message } = entry;
      if (message === undefined) continue;
      if (lane.place === entry) {
        if (goesOn && !this.#effects.mayGoOn()) break;
        this.running -= 1;
        this.#count(message, 1);
        this.#leave(entry, goesOn ? { turn: lane } : {});
      } else this.#turnAway(lane);
      lanes.add(lane);
    }
    for (const lane of lanes) this.#leaveBehind(lane);
    this.#advance(now);
  }

  #end(turn: StartedMessage): void {
    (turn as Lane).running = undefined;
    (turn as Lane).place = undefined;
    const { limit } = turn;
    turn.limit = undefined;
    // When a handler has ended, its channel takes the next message in any case.
    limit?.release(this.#effects, true);
  }

  #forget(lane: Lane): void {
    const { key, state, queue, running, uncommitted } = lane;
    const isEmpty = queue.length + uncommitted === 0 && running === undefined;
    if (key !== undefined && state === "here" && isEmpty) this.#keyed.delete(key);
  }

  #isReady(lane: Lane): boolean {
    return lane.running === undefined && lane.queue.length > 0 && mayStartIn(lane);
  }

  /** True if the first message of the lane can start, and its limit is not full. */
  #isStartable(lane: Lane): boolean {
    return this.#isReady(lane) && lane.limit?.isFull !== true;
  }

  /** Lists a lane whose first message can start now, or may have become another one; forgets one that is empty. */
  #relist(lane: Lane): void {
    this.#unlist(lane);
    if (this.#isReady(lane)) this.#list(lane);
    else this.#forget(lane);
  }

  /** Lists a lane whose first message can start, under the limit of that message. */
  #list(lane: Lane): void {
    if (this.#isClosed) return;
    lane.isListed = true;
    lane.limit = this.#limits.limitOf(lane.queue.at(0)!.message!);
    if (lane !== this.#plain) this.#ready.add(lane);
    else lane.limit?.join(this.#effects);
  }

  #unlist(lane: Lane): void {
    if (!lane.isListed) return;
    lane.isListed = false;
    if (lane === this.#plain) lane.limit?.leave(this.#effects);
    else this.#ready.delete(lane);
  }

  #laneOf({ key }: IncomingMessage): Lane {
    if (key === undefined) return this.#plain;
    let lane = this.#keyed.get(key);
    if (lane === undefined) {
      lane = new Lane(key, "here");
      this.#keyed.set(key, lane);
      if (this.#mayHaveRows) this.#ask(lane);
    }
    return lane;
  }

  /** Lane of the message that starts next. */
  #next(): Lane | undefined {
    for (;;) {
      const lane = this.#nextLane();
      const message = lane?.queue.at(0)?.message;
      if (lane === undefined || message === undefined) return undefined;
      if (lane.limit === this.#limits.limitOf(message)) return lane;
      // The handler was replaced since the lane was listed, or the name of the topic was unknown then.
      this.#unlist(lane);
      this.#list(lane);
    }
  }

  #nextLane(): Lane | undefined {
    const plain = this.#isStartable(this.#plain) ? this.#plain : undefined;
    const keyed = this.#ready.first;
    if (keyed === undefined) return plain;
    this.#plainIsNext = !this.#plainIsNext;
    return plain !== undefined && this.#plainIsNext ? plain : keyed;
  }

  /** Advances {@link handled} over messages that have ended, and commits it with those that leave. */
  #advance(now: number): void {
    const before = this.handled;
    const left: LeavingMessage[] = [];
    for (let first = this.#order.at(0); first !== undefined && hasEnded(first); first = this.#order.at(0)) {
      this.#order.shift();
      this.#ended -= 1;
      if (this.#behind?.entry === first) this.#behind = undefined;
      this.handled = first.position!;
      if (first.leaving === undefined) continue;
      left.push(first.leaving);
      this.#leaving.push(first as LeavingEntry);
    }
    if (this.handled !== before) this.#effects.commit(this.handled, left);
    this.#watchBehind(now);
  }

  /** Notes the last message that has ended behind an unfinished one: if it still is some time later, what is in front of it leaves. */
  #watchBehind(now: number): void {
    if (this.#behind !== undefined || this.#ended === 0) return;
    let last: AcceptedEntry | undefined;
    for (let index = this.#order.length - 1; index >= 0 && last === undefined; index -= 1) {
      const entry = this.#order.at(index)!;
      if (hasEnded(entry)) last = entry;
    }
    if (last !== undefined) this.#behind = { entry: last, at: now + this.#limits.leaveAfterMs };
  }

  // ---- lanes that have left ----

  /** Asks for all lanes before they go on, since messages of topics may be handled here now that all left before. */
  askAgain(): void {
    this.#isAskedInVain = this.#asked !== undefined;
    if (!this.#hasLeftTopics) return;
    this.#mayHaveRows = true;
    for (const lane of [this.#plain, ...this.#keyed.values()]) {
      if (lane.state !== "here") continue;
      this.#ask(lane);
      this.#relist(lane);
    }
  }

  /** The store has to say whether the queue has rows of a lane from before. */
  #ask(lane: Lane): void {
    lane.state = "asking";
    this.#away.add(lane);
    this.#askAt = -Infinity;
  }

  #askSoon(now: number): void {
    if (this.#away.size > 0 && this.#askAt === Infinity) this.#askAt = now + this.#askEveryMs;
  }

  #askNow(): void {
    const asked = new Set<Lane>();
    for (const lane of this.#away) {
      if (lane.uncommitted === 0 && lane.running === undefined) asked.add(lane);
      if (asked.size === this.#limits.lanesAtOnce) break;
    }
    this.#askAt = Infinity;
    if (asked.size === 0) return;
    this.#asked = asked;
    this.#effects.askLanes([...asked].map(({ key }) => key));
  }
}

/** True if the cursor may pass the message. */
function hasEnded({ message }: AcceptedEntry): boolean {
  return message === undefined;
}

/** True if the first message of the lane may start here. At-most-once messages have no order with what has left. */
function mayStartIn({ state, queue }: Lane): boolean {
  return state === "here" || queue.at(0)?.position === undefined;
}

/** Failed attempt that has just ended; undefined if none has failed. */
export function failedAttemptOf(result: HandlerResult, attempt: number): FailedAttempt | undefined {
  if (!("errorCode" in result) || result.failedAt === undefined) return undefined;
  const message = shortened(result.errorMessage, deadLetterFailureBytes);
  return { attempt, at: result.failedAt, code: result.errorCode, message };
}
