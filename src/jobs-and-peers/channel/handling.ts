/**
 * Schedules the accepted and unfinished messages of a listener's channel: waiting messages, messages in handlers with
 * their attempts, and the limit of how far handlers may run ahead of the committed cursor.
 *
 * Messages with the same key are handled one after another, and so are messages without a key. Messages with different
 * keys run in parallel. The cursor moves over a message when all messages before it
 * are finished too. Messages that were already completed beyond the cursor when the channel was opened have marks in
 * the store; they count as finished when they arrive.
 *
 * After an unclean exit, a message may have killed the process. All messages are then handled one after another. The
 * first numbered message starts only when its attempt is counted in the store. After that message, one, two, four, …
 * messages may be finished ahead of the committed cursor; each commit that reaches all finished messages doubles this
 * number. Each crash therefore at least halves the distance to the fatal message, until that message is the first and
 * its count makes it a dead letter.
 *
 * A message whose handler's Postgres session ended may be the cause. It starts again only when it is the first, no
 * other message runs, and all its starts are counted, including the earlier ones in this process.
 *
 * A message with a long retry delay is parked: the store keeps it, the cursor passes it, and it still blocks its
 * key. Later messages of its key are parked too. So the parked messages of a key are always the key's first messages,
 * even after the channel is opened again. After an unclean exit, each parked message starts in quarantine within the
 * channel, when its start is counted.
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
  type DeadMessage,
  type FailedAttempt,
  type IncomingMessage,
  memoryBytes,
  type ParkedMessage,
  type Position,
} from "./messages.js";

/** Number of failed attempts that a dead letter keeps, the last ones. */
export const deadLetterFailures = 16;
/** Maximum bytes of the error message that a dead letter keeps per attempt. */
export const deadLetterFailureBytes = 512;

/** Window size above which a channel with a suspect drops its limit. */
const unlimitedFromWindow = 65_536;

/**
 * Position of a message in the order of acceptance, kept until all earlier messages are finished. That can take long
 * behind a key with a slow handler, so a finished message keeps only its position.
 */
interface AcceptedEntry {
  readonly position: Position | undefined;
  /** Undefined for a message that was completed before the channel was opened. */
  readonly lane: Lane | undefined;
  /** Undefined once the message is finished. */
  message: IncomingMessage | undefined;
  parked?: Parked;
}

/** State of a message that is parked or being parked. */
interface Parked {
  /** True if the store has the message parked, so that the cursor may pass it and it may start. */
  isStored: boolean;
  /** Number of starts so far. */
  attempts: number;
  /** State of the count of its next start. Set if the message may have ended a process or its handler's session. */
  count: "needed" | "pending" | "counted" | undefined;
}

const noFailures: readonly FailedAttempt[] = [];

/** Queue of messages that are handled one after another, and its current message. */
export class Lane implements Limited {
  /** Undefined for messages without a key. */
  readonly key: string | undefined;
  readonly queue = new Fifo<AcceptedEntry>();
  /** Message in the handler or waiting for a retry. */
  running: IncomingMessage | undefined;
  place: AcceptedEntry | undefined;
  /** Number of starts of the current message. */
  attempts = 0;
  /** Last failed attempts of the current message. */
  failures: readonly FailedAttempt[] = noFailures;
  /** Time of the retry; undefined while the message is in the handler. */
  retryAt: number | undefined;
  /** True if the Postgres session of its handler ended. */
  isSuspect = false;
  /** Limit of the message that runs, or that can start. */
  limit: ConcurrencyLimit | undefined;

  constructor(key: string | undefined) {
    this.key = key;
  }
}

type HandlingEffects = Pick<
  ListenerEffects,
  "countStart" | "uncountStart" | "commit" | "deadLetter" | "park" | "unpark" | "run" | "limitFreed"
>;

/** Message that starts now. Answer with `finish`. */
export type StartedMessage = Lane & { readonly running: IncomingMessage; readonly place: AcceptedEntry };

export class Handling {
  /** Memory in bytes of messages that wait, for the handler or for a retry. */
  queuedBytes = 0;
  /** Number of waiting messages. */
  queued = 0;
  /** Committed cursor. Never moves back. */
  cursor: Position;
  /** Last position up to which all messages are finished. Its cursor commit is pending. */
  handled: Position;
  /** Time of the last progress in ms: a handler ended, or one started while none ran. */
  progressAt = 0;
  /** Number of running handlers. */
  running = 0;
  /** Lane of messages without a key. */
  readonly #plain = new Lane(undefined);
  readonly #keyed = new Map<string, Lane>();
  /** Lanes with a key whose head message can start now. */
  readonly #ready: Waitlist<Lane>;
  /** Lanes whose message waits for a retry, sorted by descending retry time. */
  readonly #retries: Lane[] = [];
  /** Lanes whose retry is due. */
  readonly #due: Waitlist<Lane>;
  /** Alternates between lanes with and without a key. */
  #plainIsNext = true;
  /** Accepted messages in order, from the first unfinished one. */
  readonly #order = new Fifo<AcceptedEntry>();
  /** Number of numbered messages that may be finished ahead of the committed cursor. */
  #window: number;
  #uncommitted = 0;
  /** Counted starts of the first message, while it may have ended an earlier process or its handler's session. */
  #count: { state: "needed" | "pending" | "counted"; starts: number } | undefined;
  /** True if a message waits for the commit of earlier messages or for running handlers. */
  isBlocked = false;
  /** Messages that are parked or being parked, by {@link positionKey}. */
  readonly #parked = new Map<string, AcceptedEntry>();
  #parkedBytes = 0;
  /** Number of parked messages that wait for a retry. */
  #parkedWaiting = 0;
  #parkedRunning = 0;
  /** Parked message whose start is counted. Until it ends, no other message of the channel starts. */
  #quarantined: AcceptedEntry | undefined;
  /** Number of completed parked messages whose row may still be in the store. */
  unparking = 0;
  /** Positions that were completed beyond the cursor when the channel was opened, and have not arrived yet. */
  readonly #done: Set<string>;
  /** Positions that were completed beyond an unfinished message, and have no mark: since {@link #markAt} was set. */
  #unmarked: Position[] = [];
  /** The same, from before. */
  #toMark: Position[] = [];
  /** Time in ms at which {@link takeToMark} has something to do; Infinity if nothing is unmarked. */
  #markAt = Infinity;
  #isClosed = false;

  readonly #limits: ListenerLimits;
  readonly #effects: HandlingEffects;

  /** @param done completed positions beyond the cursor */
  constructor(cursor: Position, done: readonly Position[], limits: ListenerLimits, effects: HandlingEffects) {
    this.#limits = limits;
    this.#effects = effects;
    this.#ready = new Waitlist(effects);
    this.#due = new Waitlist(effects);
    this.cursor = cursor;
    this.handled = cursor;
    this.#done = new Set(done.map(positionKey));
    this.#window = limits.hasSuspect ? 1 : Infinity;
    if (limits.hasSuspect) this.#count = { state: "needed", starts: limits.startsBefore };
  }

  /** True while a message whose starts are counted is unfinished: the first message or a parked one. */
  get isCounting(): boolean {
    return this.#count !== undefined || this.#quarantined !== undefined;
  }

  /** True while the store counts a start. */
  get isCountPending(): boolean {
    return this.#count?.state === "pending" || this.#quarantined?.parked?.count === "pending";
  }

  /** Number of messages that are parked or being parked. */
  get parked(): number {
    return this.#parked.size;
  }

  /** True while the store parks a message: then the cursor may pass it. */
  get isParking(): boolean {
    for (const { parked } of this.#parked.values()) if (parked?.isStored === false) return true;
    return false;
  }

  /** True if the start of the first message is counted, and ended neither the process nor the handler's session. */
  get isCounted(): boolean {
    return this.#count?.state === "counted";
  }

  /** Number of messages that wait for a retry, without parked messages. */
  get retrying(): number {
    return this.#retries.length + this.#due.size - this.#parkedWaiting;
  }

  /** First unfinished message. */
  get first(): IncomingMessage | undefined {
    return this.#order.at(0)?.message;
  }

  /** Number of starts of the first message, if it waits for a retry. */
  get #startsBefore(): number | undefined {
    const first = this.#order.at(0);
    const lane = first?.lane;
    return lane?.retryAt === undefined || lane.place !== first ? undefined : lane.attempts;
  }

  /** Time in ms at which {@link takeToMark} is due; Infinity if all that is completed beyond {@link handled} has marks. */
  get markDue(): number {
    return this.#markAt;
  }

  /**
   * Returns the positions beyond {@link handled} whose messages have been completed for some time, and have no mark.
   * The caller writes them. Most messages that are completed out of order need none, because the cursor soon passes them.
   */
  takeToMark(now: number): Position[] {
    if (now < this.#markAt) return [];
    const due = this.#toMark.filter((position) => comparePositions(position, this.handled) > 0);
    this.#toMark = this.#unmarked.filter((position) => comparePositions(position, this.handled) > 0);
    this.#unmarked = [];
    this.#markAt = this.#toMark.length > 0 ? now + this.#limits.markEveryMs : Infinity;
    return due;
  }

  /** Returns all of them, however short ago they were completed. */
  takeAllToMark(): Position[] {
    return [...this.takeToMark(Infinity), ...this.takeToMark(Infinity)];
  }

  /** True if {@link take} can return a message, or must be called to request the count of a start. */
  get canTake(): boolean {
    if (this.#due.first !== undefined) return true;
    if (this.isSerial) return this.running === 0 && this.#serialLane !== undefined;
    if (this.#isFarAhead) return this.#firstLane !== undefined;
    return this.#ready.first !== undefined || this.#isStartable(this.#plain);
  }

  /**
   * True if no message waits, runs, is parked or was completed in advance, and messages need not start one after
   * another.
   */
  get isIdle(): boolean {
    return !this.isSerial && this.#order.length === 0 && this.#parked.size === 0 && this.#done.size === 0;
  }

  /**
   * Records messages that were handled one after another while {@link isIdle}.
   *
   * @param last position of the last message
   */
  passedThrough(last: Position | undefined, count: number, now: number): void {
    this.progressAt = now;
    if (last === undefined || count === 0) return;
    this.handled = last;
    this.#uncommitted += count;
    this.#effects.commit(last);
  }

  /**
   * Restores the messages that were parked before the channel was opened, in order. Must be called before {@link push}.
   */
  restore(parked: readonly ParkedMessage[]): void {
    for (const { message, attempts, dueAt } of parked) {
      const { position } = message;
      const lane = message.key === undefined ? new Lane(undefined) : this.#laneOf(message);
      const count = this.#limits.hasSuspect ? "needed" : undefined;
      const place: AcceptedEntry = { position, lane, message, parked: { isStored: true, attempts, count } };
      this.#parked.set(positionKey(position), place);
      this.#parkedBytes += this.#bytesOf(message);
      if (lane.running !== undefined) lane.queue.push(place);
      else {
        lane.running = message;
        lane.place = place;
        lane.attempts = attempts;
        this.#pauseUntil(lane as StartedMessage, dueAt);
      }
    }
  }

  /** Queues an accepted message. @returns true if the message has a mark: it is completed or parked */
  push(message: IncomingMessage): boolean {
    const { position } = message;
    if (position !== undefined && this.#done.size > 0 && this.#done.delete(positionKey(position))) {
      // A parked message has a mark, too, but it is not finished: its place says when it is.
      this.#order.push(this.#parked.get(positionKey(position)) ?? { position, lane: undefined, message: undefined });
      this.#advance();
      return true;
    }
    const lane = this.#laneOf(message);
    const place = { position, lane, message };
    lane.queue.push(place);
    this.#order.push(place);
    this.queued += 1;
    this.queuedBytes += this.#bytesOf(message);
    if (lane.retryAt !== undefined) this.#parkBehind(lane);
    if (lane.queue.length === 1 && this.#isReady(lane)) this.#list(lane);
    return false;
  }

  /** Starts the next message. Returns undefined if none can start. */
  take(now: number): StartedMessage | undefined {
    this.signalRetry(now);
    const lane = this.#next();
    const place = lane && nextOf(lane);
    const message = place?.message;
    if (lane === undefined || place === undefined || message === undefined) return undefined;
    const { parked } = place;
    if (parked === undefined ? !this.#mayStart(message) : !this.#mayStartParked(place)) return undefined;
    const isRetry = lane.retryAt !== undefined;
    this.#unlist(lane);
    lane.limit?.take();
    if (!isRetry) {
      lane.queue.shift();
      lane.place = place;
      lane.running = message;
    } else {
      lane.isSuspect = false;
      lane.retryAt = undefined;
    }
    if (parked === undefined) {
      if (!isRetry) this.queued -= 1;
      this.queuedBytes -= this.#bytesOf(message);
      lane.attempts = Math.max(lane.attempts + 1, message.position === undefined ? 0 : (this.#count?.starts ?? 0));
    } else {
      if (isRetry) this.#parkedWaiting -= 1;
      this.#parkedRunning += 1;
      lane.attempts = parked.attempts + 1;
    }
    if (this.running + this.retrying === 0) this.progressAt = now;
    this.running += 1;
    return lane as StartedMessage;
  }

  /** Waits for no limit any more. Messages must not start after this call. */
  close(): void {
    if (this.#isReady(this.#plain)) this.#unlist(this.#plain);
    this.#ready.clear();
    this.#due.clear();
    this.#isClosed = true;
  }

  /** Schedules the retry of a message that is not done. Returns false if its result is final. */
  scheduleRetry(turn: StartedMessage, result: Exclude<HandlerResult, { kind: "done" }>, now: number): boolean {
    const policy = this.#limits.retryOf(turn.running);
    const { parked } = turn.place;
    if (result.kind === "postponed") turn.attempts -= 1;
    else if (turn.running.position === undefined) return false;
    else if (result.kind === "deferred") {
      turn.attempts -= 1;
      if (parked === undefined && this.isCounted) {
        this.#count = { state: "needed", starts: 0 };
        this.#effects.uncountStart();
      }
    } else if (result.kind === "failed") {
      if (turn.attempts >= policy.attempts) return false;
    } else if (result.kind === "sessionEnded") {
      // The session may have ended because of another message that ran at the same time. Only a counted start ran in
      // quarantine, so only its result is final.
      const lastStart = parked === undefined ? this.isCounted && this.#count!.starts : parked.count && turn.attempts;
      if (lastStart && lastStart >= policy.attempts) return false;
      turn.attempts = Math.min(turn.attempts, policy.attempts - 1);
      if (parked === undefined) {
        turn.isSuspect = true;
        if (this.#order.at(0) === turn.place) this.#count = { state: "needed", starts: 0 };
      }
    } else return false;
    turn.failures = failuresOf(turn, result, turn.attempts);
    const { parkDelayMs } = this.#limits;
    const asked = result.kind === "postponed" ? undefined : result.delayMs;
    const delayMs = asked ?? policy.delayMs(Math.max(1, turn.attempts));
    // Suspect and postponed messages are not parked: they block more than their key.
    const parks = result.kind === "failed" || result.kind === "deferred";
    const waitMs = parks ? delayMs : Math.min(delayMs, parkDelayMs);
    if (parked !== undefined) {
      this.#parkedRunning -= 1;
      parked.attempts = turn.attempts;
      if (result.kind !== "postponed") parked.count = result.kind === "sessionEnded" ? "needed" : undefined;
      if (parked.count !== "counted") this.#endQuarantine(turn.place);
    }
    this.#pauseUntil(turn, now + waitMs);
    this.#release(turn);
    this.running -= 1;
    if (parked !== undefined) {
      if (result.kind !== "postponed") this.#writeParked(turn.place, turn.attempts, now + waitMs);
    } else if (parks && waitMs >= parkDelayMs && this.#mayPark(turn, turn.place)) {
      this.#park(turn.place, turn.attempts, now + waitMs);
    }
    this.#parkBehind(turn);
    return true;
  }

  /**
   * Records that messages are parked in the store. @returns the messages that the store did not have parked before;
   * their bytes are no longer counted
   */
  onParked(positions: readonly Position[]): IncomingMessage[] {
    const parked: IncomingMessage[] = [];
    for (const position of positions) {
      const place = this.#parked.get(positionKey(position));
      if (place?.parked === undefined || place.message === undefined || place.parked.isStored) continue;
      const { message } = place;
      const lane = place.lane!;
      place.parked.isStored = true;
      parked.push(message);
      this.queuedBytes -= this.#bytesOf(message);
      if (lane.place === place) this.#parkedWaiting += 1;
      else {
        this.queued -= 1;
        if (this.#isReady(lane)) this.#list(lane);
      }
      if (this.#order.at(0) === place) this.#count = undefined;
    }
    this.#advance();
    return parked;
  }

  /**
   * Result of counting a start of the quarantined parked message.
   *
   * @param starts number of starts including this one; 0 if the message no longer exists; undefined if the count
   * failed, so that the next {@link take} requests it again
   */
  parkedCounted(starts: number | undefined): void {
    const parked = this.#quarantined?.parked;
    if (parked?.count !== "pending") return;
    const isCounted = starts !== undefined && starts > parked.attempts;
    // If the message was deleted, its start detects that it is completed.
    parked.count = isCounted || starts === 0 ? "counted" : "needed";
    if (isCounted) parked.attempts = starts - 1;
  }

  /** Finishes a message. A numbered message that was not handled becomes a dead letter. */
  end(turn: StartedMessage, result: HandlerResult, now: number): void {
    const { running: message, place } = turn;
    const { parked } = place;
    const dead = this.#deadMessage(turn, result);
    (turn as Lane).running = undefined;
    (turn as Lane).place = undefined;
    turn.attempts = 0;
    turn.failures = noFailures;
    this.#release(turn);
    this.running -= 1;
    this.progressAt = now;
    if (this.#isReady(turn)) this.#list(turn);
    else if (turn.queue.length === 0 && turn.key !== undefined) this.#keyed.delete(turn.key);
    place.message = undefined;
    if (dead !== undefined) this.#effects.deadLetter(dead);
    if (parked !== undefined) {
      this.#parkedRunning -= 1;
      this.#parkedBytes -= this.#bytesOf(message);
      this.#parked.delete(positionKey(place.position!));
      this.#endQuarantine(place);
      this.unparking += 1;
      this.#effects.unpark(place.position!);
    }
    if (this.#order.at(0) !== place) {
      // A message that is or was parked has its mark, and so has a dead letter.
      const isUnmarked = place.position !== undefined && parked === undefined && result.kind === "done";
      if (isUnmarked && result.isMarked !== true) {
        this.#unmarked.push(place.position);
        this.#markAt = Math.min(this.#markAt, now + this.#limits.markEveryMs);
      }
      return;
    }
    if (message.position !== undefined) this.#count = undefined;
    this.#advance();
  }

  /** Records a committed cursor. @returns false if it was already known */
  committed(cursor: Position): boolean {
    if (comparePositions(cursor, this.cursor) <= 0) return false;
    this.cursor = cursor;
    if (comparePositions(cursor, this.handled) < 0) return true;
    this.#uncommitted = 0;
    const wasSerial = this.isSerial;
    this.#window = this.#window >= unlimitedFromWindow ? Infinity : this.#window * 2;
    // Messages that had to start one after another can start now.
    if (wasSerial && !this.isSerial) this.isBlocked = true;
    return true;
  }

  /**
   * Result of counting a start of the first message. A count below the starts of this process is incomplete and is
   * repeated.
   *
   * @param starts number of starts including this one; undefined if the count failed, so that the next {@link take}
   * requests it again
   */
  counted(starts: number | undefined): void {
    const count = this.#count;
    if (count?.state !== "pending") return;
    count.state = (starts ?? 0) > (this.#startsBefore ?? 0) ? "counted" : "needed";
    count.starts = starts ?? count.starts;
  }

  /** Time of the next retry; Infinity if there is none, or if it was already signalled. */
  get retryDue(): number {
    return this.#retries.at(-1)?.retryAt ?? Infinity;
  }

  /** Returns true if another retry has become due. */
  signalRetry(now: number): boolean {
    const before = this.#due.size;
    while (this.retryDue <= now) this.#list(this.#retries.pop()!);
    return this.#due.size > before;
  }

  #bytesOf(message: IncomingMessage): number {
    return memoryBytes(message, this.#limits.messageOverheadBytes);
  }

  #pauseUntil(turn: StartedMessage, retryAt: number): void {
    turn.retryAt = retryAt;
    if (turn.place.parked === undefined) this.queuedBytes += this.#bytesOf(turn.running);
    else this.#parkedWaiting += 1;
    let [from, to] = [0, this.#retries.length];
    while (from < to) {
      const middle = (from + to) >> 1;
      if (this.#retries[middle]!.retryAt! > retryAt) from = middle + 1;
      else to = middle;
    }
    this.#retries.splice(from, 0, turn);
  }

  /** Parks the messages behind a parked message in order, until the limits are reached. */
  #parkBehind({ place, queue }: Lane): void {
    if (place?.parked === undefined) return;
    let from = queue.length;
    while (from > 0 && queue.at(from - 1)!.parked === undefined) from--;
    for (let index = from; index < queue.length; index++) {
      const behind = queue.at(index)!;
      if (!this.#mayPark(behind.lane!, behind)) return;
      this.#park(behind, 0, 0);
    }
  }

  #mayPark(lane: Lane, { position, message }: AcceptedEntry): boolean {
    const { maxParked, maxParkedBytes } = this.#limits;
    if (lane === this.#plain || position === undefined) return false;
    return this.#parked.size < maxParked && this.#parkedBytes + this.#bytesOf(message!) <= maxParkedBytes;
  }

  #park(place: AcceptedEntry, attempts: number, dueAt: number): void {
    place.parked = { isStored: false, attempts, count: undefined };
    this.#parked.set(positionKey(place.position!), place);
    this.#parkedBytes += this.#bytesOf(place.message!);
    this.#writeParked(place, attempts, dueAt);
  }

  #writeParked({ message }: AcceptedEntry, attempts: number, dueAt: number): void {
    this.#effects.park({ message: message as ParkedMessage["message"], attempts, dueAt });
  }

  /** Dead letter for this result; undefined if the message was handled or is delivered at most once. */
  #deadMessage(turn: StartedMessage, result: HandlerResult): DeadMessage | undefined {
    const { running: message } = turn;
    if (message.position === undefined || !("errorCode" in result)) return undefined;
    const attempts = Math.min(turn.attempts, this.#limits.retryOf(message).attempts);
    const { errorCode, errorMessage, stack, plain = message.payload } = result;
    const failures = failuresOf(turn, result, attempts);
    return { message, payload: plain, errorCode, errorMessage, attempts, stack, failures };
  }

  #endQuarantine(place: AcceptedEntry): void {
    if (this.#quarantined === place) this.#quarantined = undefined;
  }

  /** True if messages must be handled one after another. */
  get isSerial(): boolean {
    return this.#window !== Infinity || this.#count !== undefined;
  }

  #isReady({ running, queue }: Lane): boolean {
    const first = queue.at(0);
    return running === undefined && first !== undefined && first.parked?.isStored !== false;
  }

  /** True if the head message of the lane can start, and its limit is not full. */
  #isStartable(lane: Lane): boolean {
    return this.#isReady(lane) && lane.limit?.isFull !== true;
  }

  /** Lists a lane whose head message can start or whose retry is due, under the limit of that message. */
  #list(lane: Lane): void {
    if (this.#isClosed || (lane !== this.#plain && this.#ready.has(lane))) return;
    lane.limit = this.#limits.limitOf(nextOf(lane)!.message!);
    if (lane.retryAt !== undefined) this.#due.add(lane);
    else if (lane !== this.#plain) this.#ready.add(lane);
    else lane.limit?.join(this.#effects);
  }

  #unlist(lane: Lane): void {
    if (lane.retryAt !== undefined) this.#due.delete(lane);
    else if (lane === this.#plain) lane.limit?.leave(this.#effects);
    else this.#ready.delete(lane);
  }

  #release(turn: StartedMessage): void {
    const { limit } = turn;
    turn.limit = undefined;
    // When a handler has ended, its channel takes the next message in any case.
    limit?.release(this.#effects, true);
  }

  #laneOf({ key }: IncomingMessage): Lane {
    if (key === undefined) return this.#plain;
    let lane = this.#keyed.get(key);
    if (lane === undefined) {
      lane = new Lane(key);
      this.#keyed.set(key, lane);
    }
    return lane;
  }

  /** Lane of the message that starts next. */
  #next(): Lane | undefined {
    for (;;) {
      const lane = this.#takeableRetry() ?? this.#nextLane();
      const message = lane && nextOf(lane)?.message;
      if (lane === undefined || message === undefined) return undefined;
      if (lane.limit === this.#limits.limitOf(message)) return lane;
      // The handler was replaced since the lane was listed, or the name of the topic was unknown then.
      this.#unlist(lane);
      this.#list(lane);
    }
  }

  #takeableRetry(): StartedMessage | undefined {
    if (this.#due.first === undefined) return undefined;
    const alone = this.#quarantined?.lane;
    if (alone !== undefined)
      return this.#due.has(alone) && !alone.limit?.isFull ? (alone as StartedMessage) : undefined;
    const first = this.#order.at(0)?.lane;
    for (const lane of this.#due.allStartable()) {
      const parked = lane.place?.parked;
      if (parked?.isStored === false || (parked !== undefined && this.isSerial && this.running > 0)) continue;
      if (lane === first || !(lane.isSuspect || this.isSerial)) return lane as StartedMessage;
      // No unfinished message is left to wait for.
      if (parked !== undefined && this.#order.length + this.running === 0) return lane as StartedMessage;
    }
    return undefined;
  }

  #nextLane(): Lane | undefined {
    const alone = this.#quarantined;
    if (alone !== undefined)
      return alone.lane!.queue.at(0) === alone && this.#isStartable(alone.lane!) ? alone.lane : undefined;
    if (this.isSerial) return this.running > 0 ? undefined : this.#serialLane;
    if (this.#isFarAhead) return this.#firstLane;
    const plain = this.#isStartable(this.#plain) ? this.#plain : undefined;
    const keyed = this.#ready.first;
    if (keyed === undefined) return plain;
    this.#plainIsNext = !this.#plainIsNext;
    return plain !== undefined && this.#plainIsNext ? plain : keyed;
  }

  /** Lane of the next message while messages are handled one after another, if that can start. */
  get #serialLane(): Lane | undefined {
    return this.#order.length === 0 ? this.#ready.first : this.#firstLane;
  }

  /**
   * True if `maxAhead` messages behind an unfinished one are finished or wait for a retry. They stay in memory until the
   * unfinished message is done.
   */
  get #isFarAhead(): boolean {
    const handled = this.running - this.#parkedRunning;
    return this.#order.length - this.queued - handled >= this.#limits.maxAhead;
  }

  /** Lane of the first unfinished message, if its head can start. The head may be a parked message of the same key. */
  get #firstLane(): Lane | undefined {
    const lane = this.#order.at(0)?.lane;
    return lane !== undefined && this.#isStartable(lane) ? lane : undefined;
  }

  /** Advances {@link handled} over finished messages and commits it. */
  #advance(): void {
    const before = this.handled;
    const length = this.#order.length;
    let first = this.#order.at(0);
    for (; first !== undefined && mayPass(first); first = this.#order.at(0)) {
      this.#order.shift();
      if (first.position === undefined) continue;
      this.handled = first.position;
      this.#uncommitted += 1;
    }
    if (this.#order.length < length && first?.lane?.isSuspect) this.#count = { state: "needed", starts: 0 };
    if (this.handled !== before) this.#effects.commit(this.handled);
  }

  #mayStart(message: IncomingMessage): boolean {
    if (message.position === undefined) return true;
    if (this.#uncommitted >= this.#window) {
      this.isBlocked = true;
      return false;
    }
    if (this.#count === undefined || this.#count.state === "counted") return true;
    // A start is counted only for the message right after the committed cursor, in quarantine. Otherwise another message
    // might end the process, and this one would be blamed.
    if (this.#uncommitted > 0 || this.running > 0) {
      this.isBlocked = true;
      return false;
    }
    if (this.#count.state === "needed") {
      this.#count.state = "pending";
      const startsBefore = this.#startsBefore ?? this.#count.starts;
      this.#effects.countStart(startsBefore === this.#limits.retryOf(message).attempts - 1);
    }
    return false;
  }

  #mayStartParked(place: AcceptedEntry): boolean {
    const { message, parked } = place;
    if (parked!.count === undefined) return true;
    // No other message may start, since it might end the process, and this one would be blamed.
    this.#quarantined = place;
    if (this.running > 0) return false;
    if (parked!.count === "needed") {
      parked!.count = "pending";
      this.#effects.countStart(parked!.attempts === this.#limits.retryOf(message!).attempts - 1, place.position);
    }
    return parked!.count === "counted";
  }
}

/** Message of the lane that starts next: the one that waits for a retry, or the head of the queue. */
function nextOf({ retryAt, place, queue }: Lane): AcceptedEntry | undefined {
  return retryAt === undefined ? queue.at(0) : place;
}

/** Returns true if the cursor may pass the message. */
function mayPass({ message, parked }: AcceptedEntry): boolean {
  return message === undefined || parked?.isStored === true;
}

function positionKey({ epoch, number }: Position): string {
  return `${epoch}/${number}`;
}

/** Last failed attempts of a message, including the one that has just ended. */
function failuresOf({ failures }: Lane, result: HandlerResult, attempt: number): readonly FailedAttempt[] {
  const failure = failedAttemptOf(result, attempt);
  return failure === undefined ? failures : [...failures, failure].slice(-deadLetterFailures);
}

/** Failed attempt that has just ended; undefined if none has failed. */
export function failedAttemptOf(result: HandlerResult, attempt: number): FailedAttempt | undefined {
  if (!("errorCode" in result) || result.failedAt === undefined) return undefined;
  const message = shortened(result.errorMessage, deadLetterFailureBytes);
  return { attempt, at: result.failedAt, code: result.errorCode, message };
}
