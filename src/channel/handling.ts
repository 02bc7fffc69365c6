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
}

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
  failures: readonly FailedAttempt[] = [];
  /** When it is tried again; undefined: it is in the handler. */
  retryAt: number | undefined;
  /** The session in which its handler ran has ended. */
  isSuspect = false;

  constructor(key: string | undefined) {
    this.key = key;
  }
}

type HandlingEffects = Pick<ListenerEffects, "countAttempt" | "commit" | "deadLetter">;

/** A message whose handler is to begin now. It must be answered by `finish`. */
export type Turn = Lane & { readonly running: IncomingMessage; readonly place: Place };

export class Handling {
  /** Payload bytes that wait, also to be tried again. */
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
  #blocked = false;
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

  /** The first message, whose starts are counted, is not finished. */
  get isCounting(): boolean {
    return this.#count !== undefined;
  }

  /** A start is being counted in the store. */
  get isAsking(): boolean {
    return this.#count?.state === "asked";
  }

  /** The start of the first message is counted, and has not ended the process or its session. */
  get isCounted(): boolean {
    return this.#count?.state === "known";
  }

  /** Messages that could begin now if handlers are free. */
  get ready(): number {
    return this.#ready.size + (this.#isReady(this.#plain) ? 1 : 0);
  }

  /** Messages that wait to be tried again. */
  get pausing(): number {
    return this.#pausing.length + this.#due.size;
  }

  /** The first message that is not finished. */
  get first(): IncomingMessage | undefined {
    return this.#order.at(0)?.message;
  }

  /** How often the first message was begun, if it is to be tried again; undefined otherwise. */
  get startsBefore(): number | undefined {
    const lane = this.#order.at(0)?.lane;
    return lane?.retryAt === undefined ? undefined : lane.attempts;
  }

  /** What is finished beyond what is {@link handled}, in order. */
  get finishedBeyond(): Position[] {
    const positions: Position[] = [];
    for (let index = 0; index < this.#order.length; index++) {
      const { message, position } = this.#order.at(index)!;
      if (message === undefined && position !== undefined) positions.push(position);
    }
    return positions;
  }

  /** A message may begin, or has to be asked for. */
  get hasTurn(): boolean {
    if (this.#due.size > 0) return true;
    if (this.#isSerial) return this.running === 0 && this.queued > 0;
    if (this.#isFarAhead) return this.#firstLane !== undefined;
    return this.#ready.size > 0 || this.#isReady(this.#plain);
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
    this.queuedBytes += message.payload.length;
    if (lane !== this.#plain && this.#isReady(lane)) this.#ready.add(lane);
    return false;
  }

  /** The next message, whose handler begins now; undefined when there is none, or it must wait. */
  take(now: number): Turn | undefined {
    this.signalRetry(now);
    const again = this.#dueRetry();
    if (again !== undefined) {
      if (!this.#mayBegin(again.running)) return undefined;
      again.isSuspect = false;
      again.retryAt = undefined;
      this.#due.delete(again);
      this.queuedBytes -= again.running.payload.length;
      again.attempts = Math.max(again.attempts + 1, this.#count?.starts ?? 0);
      this.#begun(now);
      return again;
    }
    const lane = this.#nextLane();
    const place = lane?.queue.at(0);
    const next = place?.message;
    if (lane === undefined || next === undefined || !this.#mayBegin(next)) return undefined;
    lane.queue.shift();
    lane.place = place;
    this.#ready.delete(lane);
    this.queued -= 1;
    this.queuedBytes -= next.payload.length;
    lane.running = next;
    lane.attempts = this.#count === undefined || next.position === undefined ? 1 : this.#count.starts;
    this.#begun(now);
    return lane as Turn;
  }

  /** Whether a message is to be tried again; if so, when is settled. */
  triesAgain(turn: Turn, result: HandlerResult, now: number): boolean {
    const policy = this.#limits.retryOf(turn.running);
    if (result.kind === "postponed") turn.attempts -= 1;
    else if (turn.running.position === undefined) return false;
    else if (result.kind === "failed") {
      if (turn.attempts >= policy.attempts) return false;
    } else if (result.kind === "sessionEnded") {
      // Unless its last start was counted as that, and so was alone, it may have been another message's doing.
      if (this.isCounted && this.#count!.starts >= policy.attempts) return false;
      turn.attempts = Math.min(turn.attempts, policy.attempts - 1);
      turn.isSuspect = true;
      if (this.#order.at(0) === turn.place) this.#count = { state: "needed", starts: 0 };
    } else return false;
    turn.failures = failuresOf(turn, result, turn.attempts);
    this.#pause(turn, now + policy.delayMs(Math.max(1, turn.attempts)));
    this.running -= 1;
    return true;
  }

  /** A message is finished. A numbered one that was not handled is a dead letter. */
  end(turn: Turn, result: HandlerResult, now: number): void {
    const { running: message, place } = turn;
    const attempts = Math.min(turn.attempts, this.#limits.retryOf(message).attempts);
    const failures = failuresOf(turn, result, attempts);
    (turn as Lane).running = undefined;
    (turn as Lane).place = undefined;
    turn.attempts = 0;
    turn.failures = [];
    this.running -= 1;
    this.progressAt = now;
    if (turn !== this.#plain) {
      if (turn.queue.length > 0) this.#ready.add(turn);
      else if (turn.key !== undefined) this.#keyed.delete(turn.key);
    }
    place.message = undefined;
    const dead = deadMessage(message, result, attempts, failures);
    if (dead !== undefined) this.#effects.deadLetter(dead);
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

  /** Whether a message waited for a commit; asking takes it back. */
  unblock(): boolean {
    const blocked = this.#blocked;
    this.#blocked = false;
    return blocked;
  }

  /** One more start of the first message is counted, which makes `starts`; fewer than were begun here are not all. */
  counted(starts: number): void {
    const begun = this.startsBefore ?? 0;
    if (this.#count?.state === "asked") this.#count = { state: starts > begun ? "known" : "needed", starts };
  }

  /** The attempt could not be counted; the next {@link take} asks again. */
  countFailed(): void {
    if (this.#count?.state === "asked") this.#count.state = "needed";
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

  #pause(turn: Turn, retryAt: number): void {
    turn.retryAt = retryAt;
    this.queuedBytes += turn.running.payload.length;
    let [from, to] = [0, this.#pausing.length];
    while (from < to) {
      const middle = (from + to) >> 1;
      if (this.#pausing[middle]!.retryAt! > retryAt) from = middle + 1;
      else to = middle;
    }
    this.#pausing.splice(from, 0, turn);
  }

  /** All are handled one after another. */
  get #isSerial(): boolean {
    return this.#window !== Infinity || this.#count !== undefined;
  }

  #isReady({ running, queue }: Lane): boolean {
    return running === undefined && queue.length > 0;
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
    const first = this.#order.at(0)?.lane;
    for (const lane of this.#due) if (lane === first || !(lane.isSuspect || this.#isSerial)) return lane as Turn;
    return undefined;
  }

  #nextLane(): Lane | undefined {
    if (this.#isSerial) {
      const lane = this.#order.at(0)?.lane;
      return lane === undefined || this.running > 0 || lane.running !== undefined ? undefined : lane;
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
    return this.#order.length - this.queued - this.running >= this.#limits.maxAhead;
  }

  /** The lane of the first message that is not finished, if that may begin. */
  get #firstLane(): Lane | undefined {
    const first = this.#order.at(0);
    const lane = first?.lane;
    return lane !== undefined && this.#isReady(lane) && lane.queue.at(0) === first ? lane : undefined;
  }

  #begun(now: number): void {
    if (this.running + this.pausing === 0) this.progressAt = now;
    this.running += 1;
  }

  /** Moves over what is finished, in order, and has it committed. */
  #moveOn(): void {
    const before = this.handled;
    const length = this.#order.length;
    let first = this.#order.at(0);
    for (; first !== undefined && first.message === undefined; first = this.#order.at(0)) {
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
      this.#blocked = true;
      return false;
    }
    if (this.#count === undefined || this.#count.state === "known") return true;
    // Counted is what comes behind the committed cursor, and alone: another one may be what ends the process.
    if (this.#uncommitted > 0 || this.running > 0) {
      this.#blocked = true;
      return false;
    }
    if (this.#count.state === "needed") {
      this.#count.state = "asked";
      this.#effects.countAttempt();
    }
    return false;
  }
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

/** The dead letter that a message becomes by this result; undefined if it was handled. */
function deadMessage(
  message: IncomingMessage,
  result: HandlerResult,
  attempts: number,
  failures: readonly FailedAttempt[],
): DeadMessage | undefined {
  if (message.position === undefined || !("errorCode" in result)) return undefined;
  const { errorCode, errorMessage, stack, plain = message.payload } = result;
  return { message, payload: plain, errorCode, errorMessage, attempts, stack, failures };
}
