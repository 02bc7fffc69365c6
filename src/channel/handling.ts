/**
 * What a listener's channel has accepted and not finished: what waits, the messages in handlers with their attempts, and
 * how far handlers may run ahead of the committed cursor.
 *
 * Messages with one key are handled one after another, and those without a key as well, unless the channel has no order;
 * different keys side by side. The cursor moves over a message when all before it are finished, too. What is known to be
 * done beyond the cursor when the channel is opened has marks in the store: it takes its place, finished.
 *
 * After an unclean exit a message may have been what killed the process. All are handled one after another then. The first
 * numbered one begins only when its attempt is counted in the store, and behind it one, two, four, … messages are handled
 * before the next waits for the commit of those before: each crash at least halves the way to the message that kills, until
 * it is the first and its count ends it.
 *
 * A message whose handler's session with Postgres has ended may have been what ended it. It begins again only when it is the
 * first, no other one runs, and all its starts are counted, the earlier ones in this process included.
 *
 * A message that fails and waits long to be tried again is parked: the store keeps it, the cursor passes it, and it still holds
 * up its key. What comes behind it is parked, too. So the parked messages of a key are its first ones, also when the channel is
 * opened again. After an unclean exit, each of them begins alone in the channel when its start is counted.
 */
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { shortened } from "../errors/index.js";
import { Fifo } from "../runtime/index.js";
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

/** From here on a channel that began carefully runs freely. */
const careFreeWindow = 65_536;

/**
 * The place of a message in the order of acceptance, until all before it are finished. That may take long behind a key whose
 * handler is slow, so a finished message leaves nothing here but its position.
 */
interface Place {
  readonly position: Position | undefined;
  /** Undefined for one that was done before the channel was opened. */
  readonly lane: Lane | undefined;
  /** Undefined once it is finished. */
  message: IncomingMessage | undefined;
  parked?: Parked;
}

/** What is known of a message that is parked, or is to be. */
interface Parked {
  /** The store has it: the cursor may pass it, and it may begin. */
  isKept: boolean;
  /** How often it was begun. */
  attempts: number;
  /** The count of its next start, if it may have ended a process, or its session. */
  count: "needed" | "asked" | "known" | undefined;
}

const noFailures: readonly FailedAttempt[] = [];

/** Messages that are handled one after another, and the one whose turn it is. */
export class Lane {
  /** Undefined for messages without a key. Where they have no order, each has a lane of its own. */
  readonly key: string | undefined;
  readonly queue = new Fifo<Place>();
  /** In the handler, or waiting to be tried again. */
  running: IncomingMessage | undefined;
  place: Place | undefined;
  /** How often that was begun. */
  attempts = 0;
  /** Its last attempts that have failed. */
  failures: readonly FailedAttempt[] = noFailures;
  /** When it is tried again; undefined: it is in the handler. */
  retryAt: number | undefined;
  /** The session in which its handler ran has ended. */
  isSuspect = false;

  constructor(key: string | undefined) {
    this.key = key;
  }
}

type HandlingEffects = Pick<
  ListenerEffects,
  "countAttempt" | "commit" | "deadLetter" | "park" | "unpark" | "countParked"
>;

/** A message whose handler is to begin now. It must be answered by `finish`. */
export type Turn = Lane & { readonly running: IncomingMessage; readonly place: Place };

export class Handling {
  /** The memory that waiting messages take, also those that wait to be tried again. */
  queuedBytes = 0;
  /** How many messages wait. */
  queued = 0;
  /** Committed in the store; moves only forward. */
  cursor: Position;
  /** The handlers of all up to here are done, or were given up; the cursor commit is under way. */
  handled: Position;
  /** When a handler began while none ran, or one has ended: since then nothing has moved. */
  progressAt = 0;
  /** How many handlers run. */
  running = 0;
  /** Those without a key, in their order. */
  readonly #plain = new Lane(undefined);
  readonly #keyed = new Map<string, Lane>();
  /** Those whose next message may begin, but for {@link #plain}. */
  readonly #ready = new Set<Lane>();
  /** Those whose message waits to be tried again, the first that is due last. */
  readonly #pausing: Lane[] = [];
  /** Those whose time to be tried again has come. */
  readonly #due = new Set<Lane>();
  /** Begins with a message without a key next, where there is one. */
  #plainIsNext = true;
  /** In the order of acceptance: from the first that is not finished on. */
  readonly #order = new Fifo<Place>();
  /** So many numbered messages may be finished ahead of the committed cursor. */
  #window: number;
  #uncommitted = 0;
  /** The count of the first message's starts, while it may have killed the process, or its session, before. */
  #count: { state: "needed" | "asked" | "known"; starts: number } | undefined;
  /** A message waits for the commit of those before, or for the handlers that run. */
  isBlocked = false;
  /** Messages that are parked, or are to be. */
  readonly #parked = new Map<string, Place>();
  #parkedBytes = 0;
  /** Parked ones that wait to be tried again, or whose handlers run. */
  #parkedWaiting = 0;
  #parkedRunning = 0;
  /** A parked message whose start is counted, until it has ended: no other one of the channel begins. */
  #alone: Place | undefined;
  /** Parked messages that are done, and that the store may still have. */
  unparking = 0;
  /** What was done beyond the cursor when the channel was opened, and has not come yet. */
  readonly #done: Set<string>;

  readonly #limits: ListenerLimits;
  readonly #effects: HandlingEffects;

  /** @param done beyond the cursor */
  constructor(cursor: Position, done: readonly Position[], limits: ListenerLimits, effects: HandlingEffects) {
    this.#limits = limits;
    this.#effects = effects;
    this.cursor = cursor;
    this.handled = cursor;
    this.#done = new Set(done.map(nameOf));
    this.#window = limits.careful ? 1 : Infinity;
    if (limits.careful) this.#count = { state: "needed", starts: 0 };
  }

  /** A message whose starts are counted is not finished: the first, or a parked one. */
  get isCounting(): boolean {
    return this.#count !== undefined || this.#alone !== undefined;
  }

  /** A start is being counted in the store. */
  get isAsking(): boolean {
    return this.#count?.state === "asked" || this.#alone?.parked?.count === "asked";
  }

  /** Messages that are parked, or are to be. */
  get parked(): number {
    return this.#parked.size;
  }

  /** The start of the first message is counted, and has not ended the process or its session. */
  get isCounted(): boolean {
    return this.#count?.state === "known";
  }

  /** Messages that could begin now if handlers are free. */
  get ready(): number {
    return this.#ready.size + (this.#isReady(this.#plain) ? 1 : 0);
  }

  /** Messages that wait to be tried again, but for parked ones. */
  get pausing(): number {
    return this.#pausing.length + this.#due.size - this.#parkedWaiting;
  }

  /** The first message that is not finished. */
  get first(): IncomingMessage | undefined {
    return this.#order.at(0)?.message;
  }

  /** How often the first message was begun, if it is to be tried again; undefined otherwise. */
  get startsBefore(): number | undefined {
    const first = this.#order.at(0);
    const lane = first?.lane;
    return lane?.retryAt === undefined || lane.place !== first ? undefined : lane.attempts;
  }

  /** What is finished beyond what is {@link handled}, in order. */
  get finishedBeyond(): Position[] {
    const positions: Position[] = [];
    for (let index = 0; index < this.#order.length; index++) {
      const { message, position, parked } = this.#order.at(index)!;
      if (message === undefined && position !== undefined && parked === undefined) positions.push(position);
    }
    return positions;
  }

  /** A message may begin, or has to be asked for. */
  get hasTurn(): boolean {
    if (this.#due.size > 0) return true;
    if (this.isSerial) return this.running === 0 && (this.queued > 0 || this.#ready.size > 0);
    if (this.#isFarAhead) return this.#firstLane !== undefined;
    return this.#ready.size > 0 || this.#isReady(this.#plain);
  }

  /** Nothing waits, runs, is parked, or is known to be done, and messages need not begin one after another. */
  get isFree(): boolean {
    return !this.isSerial && this.#order.length === 0 && this.#parked.size === 0 && this.#done.size === 0;
  }

  /** So many messages were handled one after another while all {@link isFree}, up to this one. */
  passed(last: Position | undefined, count: number, now: number): void {
    this.progressAt = now;
    if (last === undefined || count === 0) return;
    this.handled = last;
    this.#uncommitted += count;
    this.#effects.commit(last);
  }

  /** Takes what was parked before the channel was opened, in order, before all else. */
  restore(parked: readonly ParkedMessage[]): void {
    for (const { message, attempts, dueAt } of parked) {
      const { position } = message;
      const lane = message.key === undefined ? new Lane(undefined) : this.#laneOf(message);
      const count = this.#limits.careful ? "needed" : undefined;
      const place: Place = { position, lane, message, parked: { isKept: true, attempts, count } };
      this.#parked.set(nameOf(position), place);
      this.#parkedBytes += this.#bytesOf(message);
      if (lane.running !== undefined) lane.queue.push(place);
      else {
        lane.running = message;
        lane.place = place;
        lane.attempts = attempts;
        this.#pause(lane as Turn, dueAt);
      }
    }
  }

  /** Takes an accepted message. @returns whether it was done before: then it is finished already */
  push(message: IncomingMessage): boolean {
    const { position } = message;
    if (position !== undefined && this.#done.size > 0 && this.#done.delete(nameOf(position))) {
      this.#order.push({ position, lane: undefined, message: undefined });
      this.#moveOn();
      return true;
    }
    const lane = this.#laneOf(message);
    const place = { position, lane, message };
    lane.queue.push(place);
    this.#order.push(place);
    this.queued += 1;
    this.queuedBytes += this.#bytesOf(message);
    if (lane.retryAt !== undefined) this.#parkBehind(lane);
    if (lane !== this.#plain && this.#isReady(lane)) this.#ready.add(lane);
    return false;
  }

  /** The next message, whose handler begins now; undefined when there is none, or it must wait. */
  take(now: number): Turn | undefined {
    this.signalRetry(now);
    const again = this.#dueRetry();
    const lane: Lane | undefined = again ?? this.#nextLane();
    const place = again?.place ?? lane?.queue.at(0);
    const message = place?.message;
    if (lane === undefined || place === undefined || message === undefined) return undefined;
    const { parked } = place;
    if (parked === undefined ? !this.#mayBegin(message) : !this.#mayBeginParked(place)) return undefined;
    if (again === undefined) {
      lane.queue.shift();
      this.#ready.delete(lane);
      lane.place = place;
      lane.running = message;
    } else {
      this.#due.delete(again);
      lane.isSuspect = false;
      lane.retryAt = undefined;
    }
    if (parked === undefined) {
      if (again === undefined) this.queued -= 1;
      this.queuedBytes -= this.#bytesOf(message);
      lane.attempts = Math.max(lane.attempts + 1, message.position === undefined ? 0 : (this.#count?.starts ?? 0));
    } else {
      if (again !== undefined) this.#parkedWaiting -= 1;
      this.#parkedRunning += 1;
      lane.attempts = parked.attempts + 1;
    }
    if (this.running + this.pausing === 0) this.progressAt = now;
    this.running += 1;
    return lane as Turn;
  }

  /** Whether a message that is not done is to be tried again; if so, when is settled. */
  triesAgain(turn: Turn, result: Exclude<HandlerResult, { kind: "done" }>, now: number): boolean {
    const policy = this.#limits.retryOf(turn.running);
    const { parked } = turn.place;
    if (result.kind === "postponed") turn.attempts -= 1;
    else if (turn.running.position === undefined) return false;
    else if (result.kind === "failed") {
      if (turn.attempts >= policy.attempts) return false;
    } else if (result.kind === "sessionEnded") {
      // Unless its last start was counted as that, and so was alone, it may have been another message's doing.
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
    const delayMs = policy.delayMs(Math.max(1, turn.attempts));
    // Only one that has failed may be parked; the others hold up more than their key.
    const waitMs = result.kind === "failed" ? delayMs : Math.min(delayMs, parkDelayMs);
    if (parked !== undefined) {
      this.#parkedRunning -= 1;
      parked.attempts = turn.attempts;
      if (result.kind !== "postponed") parked.count = result.kind === "sessionEnded" ? "needed" : undefined;
      if (parked.count !== "known") this.#notAlone(turn.place);
    }
    this.#pause(turn, now + waitMs);
    this.running -= 1;
    if (parked !== undefined) {
      if (result.kind !== "postponed") this.#writeParked(turn.place, turn.attempts, now + waitMs);
    } else if (result.kind === "failed" && waitMs >= parkDelayMs && this.#mayPark(turn, turn.place)) {
      this.#park(turn.place, turn.attempts, now + waitMs);
    }
    this.#parkBehind(turn);
    return true;
  }

  /** The store has parked messages. @returns those that it had not before: they take no room here any more */
  onParked(positions: readonly Position[]): IncomingMessage[] {
    const parked: IncomingMessage[] = [];
    for (const position of positions) {
      const place = this.#parked.get(nameOf(position));
      if (place?.parked === undefined || place.message === undefined || place.parked.isKept) continue;
      const { message } = place;
      const lane = place.lane!;
      place.parked.isKept = true;
      parked.push(message);
      this.queuedBytes -= this.#bytesOf(message);
      if (lane.place === place) this.#parkedWaiting += 1;
      else {
        this.queued -= 1;
        if (this.#isReady(lane)) this.#ready.add(lane);
      }
      if (this.#order.at(0) === place) this.#count = undefined;
    }
    this.#moveOn();
    return parked;
  }

  /**
   * One more start of the parked message that is to be alone is counted, which makes `starts`; 0: it is not there any more;
   * undefined: that has failed, and the next {@link take} asks again.
   */
  parkedCounted(starts: number | undefined): void {
    const parked = this.#alone?.parked;
    if (parked?.count !== "asked") return;
    const isCounted = starts !== undefined && starts > parked.attempts;
    // One that is gone is found to be done when it begins.
    parked.count = isCounted || starts === 0 ? "known" : "needed";
    if (isCounted) parked.attempts = starts - 1;
  }

  /** A message is finished. A numbered one that was not handled is a dead letter. */
  end(turn: Turn, result: HandlerResult, now: number): void {
    const { running: message, place } = turn;
    const { parked } = place;
    const dead = this.#deadMessage(turn, result);
    (turn as Lane).running = undefined;
    (turn as Lane).place = undefined;
    turn.attempts = 0;
    turn.failures = noFailures;
    this.running -= 1;
    this.progressAt = now;
    if (turn !== this.#plain) {
      if (this.#isReady(turn)) this.#ready.add(turn);
      else if (turn.queue.length === 0 && turn.key !== undefined) this.#keyed.delete(turn.key);
    }
    place.message = undefined;
    if (dead !== undefined) this.#effects.deadLetter(dead);
    if (parked !== undefined) {
      this.#parkedRunning -= 1;
      this.#parkedBytes -= this.#bytesOf(message);
      this.#parked.delete(nameOf(place.position!));
      this.#notAlone(place);
      this.unparking += 1;
      this.#effects.unpark(place.position!);
    }
    if (this.#order.at(0) !== place) return;
    if (message.position !== undefined) this.#count = undefined;
    this.#moveOn();
  }

  /** The cursor is surely committed. @returns whether that was unknown */
  committed(cursor: Position): boolean {
    if (comparePositions(cursor, this.cursor) <= 0) return false;
    this.cursor = cursor;
    if (comparePositions(cursor, this.handled) < 0) return true;
    this.#uncommitted = 0;
    this.#window = this.#window >= careFreeWindow ? Infinity : this.#window * 2;
    return true;
  }

  /**
   * One more start of the first message is counted, which makes `starts`; fewer than were begun here are not all. Undefined: that
   * has failed, and the next {@link take} asks again.
   */
  counted(starts: number | undefined): void {
    const count = this.#count;
    if (count?.state !== "asked") return;
    count.state = (starts ?? 0) > (this.startsBefore ?? 0) ? "known" : "needed";
    count.starts = starts ?? count.starts;
  }

  /** When the next retry is due; Infinity without one, or once it was signalled. */
  get retryDue(): number {
    return this.#pausing.at(-1)?.retryAt ?? Infinity;
  }

  /** Whether a retry is due that was not before. */
  signalRetry(now: number): boolean {
    const before = this.#due.size;
    while (this.retryDue <= now) this.#due.add(this.#pausing.pop()!);
    return this.#due.size > before;
  }

  #bytesOf(message: IncomingMessage): number {
    return memoryBytes(message, this.#limits.messageOverheadBytes);
  }

  #pause(turn: Turn, retryAt: number): void {
    turn.retryAt = retryAt;
    if (turn.place.parked === undefined) this.queuedBytes += this.#bytesOf(turn.running);
    else this.#parkedWaiting += 1;
    let [from, to] = [0, this.#pausing.length];
    while (from < to) {
      const middle = (from + to) >> 1;
      if (this.#pausing[middle]!.retryAt! > retryAt) from = middle + 1;
      else to = middle;
    }
    this.#pausing.splice(from, 0, turn);
  }

  /** Parks what has come behind a parked message, as far as there is room: never one before which another is not parked. */
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

  #mayPark(lane: Lane, { position, message }: Place): boolean {
    const { maxParked, maxParkedBytes } = this.#limits;
    if (lane === this.#plain || position === undefined) return false;
    return this.#parked.size < maxParked && this.#parkedBytes + this.#bytesOf(message!) <= maxParkedBytes;
  }

  #park(place: Place, attempts: number, dueAt: number): void {
    place.parked = { isKept: false, attempts, count: undefined };
    this.#parked.set(nameOf(place.position!), place);
    this.#parkedBytes += this.#bytesOf(place.message!);
    this.#writeParked(place, attempts, dueAt);
  }

  #writeParked({ message }: Place, attempts: number, dueAt: number): void {
    this.#effects.park({ message: message as ParkedMessage["message"], attempts, dueAt });
  }

  /** The dead letter that a message becomes by this result; undefined if it was handled, or is delivered at most once. */
  #deadMessage(turn: Turn, result: HandlerResult): DeadMessage | undefined {
    const { running: message } = turn;
    if (message.position === undefined || !("errorCode" in result)) return undefined;
    const attempts = Math.min(turn.attempts, this.#limits.retryOf(message).attempts);
    const { errorCode, errorMessage, stack, plain = message.payload } = result;
    const failures = failuresOf(turn, result, attempts);
    return { message, payload: plain, errorCode, errorMessage, attempts, stack, failures };
  }

  #notAlone(place: Place): void {
    if (this.#alone === place) this.#alone = undefined;
  }

  /** All are handled one after another. */
  get isSerial(): boolean {
    return this.#window !== Infinity || this.#count !== undefined;
  }

  #isReady({ running, queue }: Lane): boolean {
    const first = queue.at(0);
    return running === undefined && first !== undefined && first.parked?.isKept !== false;
  }

  #laneOf({ key, position }: IncomingMessage): Lane {
    if (key === undefined) return this.#limits.unordered && position !== undefined ? new Lane(undefined) : this.#plain;
    let lane = this.#keyed.get(key);
    if (lane === undefined) {
      lane = new Lane(key);
      this.#keyed.set(key, lane);
    }
    return lane;
  }

  #dueRetry(): Turn | undefined {
    const alone = this.#alone?.lane;
    if (alone !== undefined) return this.#due.has(alone) ? (alone as Turn) : undefined;
    const first = this.#order.at(0)?.lane;
    for (const lane of this.#due) {
      const parked = lane.place?.parked;
      if (parked?.isKept === false || (parked !== undefined && this.isSerial && this.running > 0)) continue;
      if (lane === first || !(lane.isSuspect || this.isSerial)) return lane as Turn;
      // Nothing else is there that it would have to wait for.
      if (parked !== undefined && this.#order.length + this.running === 0) return lane as Turn;
    }
    return undefined;
  }

  #nextLane(): Lane | undefined {
    const alone = this.#alone;
    if (alone !== undefined)
      return alone.lane!.queue.at(0) === alone && this.#isReady(alone.lane!) ? alone.lane : undefined;
    if (this.isSerial) {
      const [parked] = this.#ready;
      const lane = this.#order.length === 0 ? parked : this.#order.at(0)!.lane;
      return lane === undefined || this.running > 0 || !this.#isReady(lane) ? undefined : lane;
    }
    if (this.#isFarAhead) return this.#firstLane;
    const plain = this.#isReady(this.#plain) ? this.#plain : undefined;
    if (this.#ready.size === 0) return plain;
    this.#plainIsNext = !this.#plainIsNext;
    if (plain !== undefined && this.#plainIsNext) return plain;
    const [keyed] = this.#ready;
    return keyed;
  }

  /** As much as may be is finished, or waits to be tried again, while an earlier message is not done: it is kept in memory. */
  get #isFarAhead(): boolean {
    const handled = this.running - this.#parkedRunning;
    return this.#order.length - this.queued - handled >= this.#limits.maxAhead;
  }

  /** The lane of the first message that is not finished, if that may begin, or a parked one of its key. */
  get #firstLane(): Lane | undefined {
    const lane = this.#order.at(0)?.lane;
    return lane !== undefined && this.#isReady(lane) ? lane : undefined;
  }

  /** Moves over what is finished, in order, and has it committed. */
  #moveOn(): void {
    const before = this.handled;
    const length = this.#order.length;
    let first = this.#order.at(0);
    for (; first !== undefined && isPassed(first); first = this.#order.at(0)) {
      this.#order.shift();
      if (first.position === undefined) continue;
      this.handled = first.position;
      this.#uncommitted += 1;
    }
    if (this.#order.length < length && first?.lane?.isSuspect) this.#count = { state: "needed", starts: 0 };
    if (this.handled !== before) this.#effects.commit(this.handled);
  }

  #mayBegin(message: IncomingMessage): boolean {
    if (message.position === undefined) return true;
    if (this.#uncommitted >= this.#window) {
      this.isBlocked = true;
      return false;
    }
    if (this.#count === undefined || this.#count.state === "known") return true;
    // Counted is what comes behind the committed cursor, and alone: another one may be what ends the process.
    if (this.#uncommitted > 0 || this.running > 0) {
      this.isBlocked = true;
      return false;
    }
    if (this.#count.state === "needed") {
      this.#count.state = "asked";
      this.#effects.countAttempt();
    }
    return false;
  }

  #mayBeginParked(place: Place): boolean {
    const { message, parked } = place;
    if (parked!.count === undefined) return true;
    // Another one may be what ends the process: none begins from here on.
    this.#alone = place;
    if (this.running > 0) return false;
    if (parked!.count === "needed") {
      parked!.count = "asked";
      this.#effects.countParked(place.position!, parked!.attempts === this.#limits.retryOf(message!).attempts - 1);
    }
    return parked!.count === "known";
  }
}

/** The cursor may pass it. */
function isPassed({ message, parked }: Place): boolean {
  return message === undefined || parked?.isKept === true;
}

function nameOf({ epoch, number }: Position): string {
  return `${epoch}/${number}`;
}

/** The failed attempts of a message with the one that has ended now. */
function failuresOf({ failures }: Lane, result: HandlerResult, attempt: number): readonly FailedAttempt[] {
  if (!("errorCode" in result) || result.failedAt === undefined) return failures;
  const message = shortened(result.errorMessage, storeConstants.deadLetterFailureBytes);
  const failure = { attempt, at: result.failedAt, code: result.errorCode, message };
  return [...failures, failure].slice(-storeConstants.deadLetterFailures);
}
