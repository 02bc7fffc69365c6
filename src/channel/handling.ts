/**
 * What a listener's channel has accepted and not finished: what waits, the messages in handlers with their attempts, and
 * how far handlers may run ahead of the committed cursor.
 *
 * Messages with one key are handled one after another, and those without a key as well; different keys side by side. The
 * cursor moves over a message when all before it are finished, too.
 *
 * After an unclean exit a message may have been what killed the process. All are handled one after another then. The first
 * numbered one begins only when its attempt is counted in the store, and behind it one, two, four, … messages are handled
 * before the next waits for the commit of those before: each crash at least halves the way to the message that kills, until
 * it is the first and its count ends it.
 *
 * A message whose handler's session with Postgres has ended may have been what ended it. It begins again only when all its
 * starts are counted, the earlier ones in this process included. Transactional handlers move the cursor themselves: they,
 * too, run one after another.
 */
import { Fifo } from "../runtime/index.js";
import type { HandlerResult, ListenerEffects, ListenerLimits } from "./effects.js";
import { comparePositions, type DeadMessage, type IncomingMessage, type Position } from "./messages.js";

/** From here on a channel that began carefully runs freely. */
const careFreeWindow = 65_536;

/**
 * The place of a message in the order of acceptance, until all before it are finished. That may take long behind a key whose
 * handler is slow, so a finished message leaves nothing here but its position.
 */
interface Place {
  readonly position: Position | undefined;
  /** Undefined once it is finished. */
  message: IncomingMessage | undefined;
  /** What it became if it was given up. */
  dead: DeadMessage | undefined;
}

/** Messages that are handled one after another, and the one whose turn it is. */
export class Lane {
  /** Undefined for messages without a key. */
  readonly key: string | undefined;
  readonly queue = new Fifo<Place>();
  /** In the handler, or waiting to be tried again. */
  running: IncomingMessage | undefined;
  place: Place | undefined;
  /** How often that was begun. */
  attempts = 0;
  /** When it is tried again; undefined: it is in the handler. */
  retryAt: number | undefined;
  /** That the retry is due was signalled; it was not taken since. */
  retrySignalled = false;

  constructor(key: string | undefined) {
    this.key = key;
  }
}

/** A message whose handler is to begin now. It must be answered by `finish`. */
export type Turn = Lane & { readonly running: IncomingMessage; readonly place: Place };

export class Handling {
  /** Payload bytes that wait. */
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
  readonly #plain = new Lane(undefined);
  readonly #keyed = new Map<string, Lane>();
  /** Those with a key whose next message may begin. */
  readonly #ready = new Set<Lane>();
  /** Those whose message waits to be tried again. */
  readonly #pausing = new Set<Lane>();
  /** Begins with a message without a key next, where there is one. */
  #plainIsNext = true;
  /** In the order of acceptance: from the first that is not finished on. */
  readonly #order = new Fifo<Place>();
  /** So many numbered messages may be finished ahead of the committed cursor. */
  #window: number;
  #uncommitted = 0;
  /** The count of the first message's starts, while it may have killed the process, or its session, before. */
  #count: { state: "needed" | "asked" | "known"; starts: number } | undefined;
  /** A message waits for the commit of those before. */
  #blocked = false;

  readonly #limits: ListenerLimits;
  readonly #effects: Pick<ListenerEffects, "countAttempt" | "commit">;

  constructor(cursor: Position, limits: ListenerLimits, effects: Pick<ListenerEffects, "countAttempt" | "commit">) {
    this.#limits = limits;
    this.#effects = effects;
    this.cursor = cursor;
    this.handled = cursor;
    this.#window = limits.transactional || limits.careful ? 1 : Infinity;
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

  /** Messages that wait to be tried again. */
  get pausing(): number {
    return this.#pausing.size;
  }

  /** How often the message that is to be tried again first was begun; undefined when none is. */
  get startsBefore(): number | undefined {
    const [lane] = this.#pausing;
    return lane?.attempts;
  }

  /** A message may begin now, or has to be asked for because its time may have come. */
  get hasTurn(): boolean {
    if (this.#pausing.size > 0) return true;
    if (this.#isSerial) return this.running === 0 && this.queued > 0;
    if (this.#isFarAhead) return this.#firstLane !== undefined;
    return this.#ready.size > 0 || this.#isReady(this.#plain);
  }

  push(message: IncomingMessage): void {
    const lane = this.#laneOf(message);
    const place = { position: message.position, message, dead: undefined };
    lane.queue.push(place);
    this.#order.push(place);
    this.queued += 1;
    this.queuedBytes += message.payload.length;
    if (lane.key !== undefined && this.#isReady(lane)) this.#ready.add(lane);
  }

  /** The next message, whose handler begins now; undefined when there is none, or it must wait. */
  take(now: number): Turn | undefined {
    const again = this.#dueRetry(now);
    if (again !== undefined) {
      if (!this.#mayBegin(again.running)) return undefined;
      this.#pausing.delete(again);
      again.retryAt = undefined;
      again.retrySignalled = false;
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
    const { maxAttempts } = this.#limits;
    if (result.kind === "postponed") turn.attempts -= 1;
    else if (turn.running.position === undefined) return false;
    else if (result.kind === "failed") {
      if (turn.attempts >= maxAttempts) return false;
    } else if (result.kind === "sessionEnded") {
      // Unless its last start was counted as that, and so was alone, it may have been another message's doing.
      if (this.isCounted && this.#count!.starts >= maxAttempts) return false;
      turn.attempts = Math.min(turn.attempts, maxAttempts - 1);
      this.#count = { state: "needed", starts: 0 };
    } else return false;
    turn.retryAt = now + this.#limits.retryDelayMs * 2 ** Math.max(0, turn.attempts - 1);
    turn.retrySignalled = false;
    this.#pausing.add(turn);
    this.running -= 1;
    return true;
  }

  /** A message is finished. A numbered one that was not handled is a dead letter. */
  end(turn: Turn, result: HandlerResult, now: number): void {
    const { running: message, place } = turn;
    const attempts = Math.min(turn.attempts, this.#limits.maxAttempts);
    (turn as Lane).running = undefined;
    (turn as Lane).place = undefined;
    turn.attempts = 0;
    this.running -= 1;
    this.progressAt = now;
    if (turn.key !== undefined) {
      if (turn.queue.length > 0) this.#ready.add(turn);
      else this.#keyed.delete(turn.key);
    }
    if (message.position !== undefined) this.#count = undefined;
    if (result.kind === "committed" && message.position !== undefined) {
      this.cursor = message.position;
      this.handled = message.position;
      this.#uncommitted = 0;
      this.#order.shift();
      return;
    }
    place.message = undefined;
    place.dead = deadMessage(message, result, attempts);
    if (this.#order.at(0) === place) this.#moveOn();
  }

  /** The cursor is surely committed. @returns whether that was unknown */
  committed(cursor: Position): boolean {
    if (comparePositions(cursor, this.cursor) <= 0) return false;
    this.cursor = cursor;
    if (comparePositions(cursor, this.handled) < 0) return true;
    this.#uncommitted = 0;
    if (!this.#limits.transactional) this.#window = this.#window >= careFreeWindow ? Infinity : this.#window * 2;
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
    let due = Infinity;
    for (const { retryAt, retrySignalled } of this.#pausing) if (!retrySignalled) due = Math.min(due, retryAt!);
    return due;
  }

  /** Whether a retry is due and was not signalled before. */
  signalRetry(now: number): boolean {
    let isDue = false;
    for (const lane of this.#pausing) {
      if (lane.retrySignalled || now < lane.retryAt!) continue;
      lane.retrySignalled = true;
      isDue = true;
    }
    return isDue;
  }

  /** All are handled one after another. */
  get #isSerial(): boolean {
    return this.#window !== Infinity || this.#count !== undefined;
  }

  #isReady({ running, queue }: Lane): boolean {
    return running === undefined && queue.length > 0;
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

  #dueRetry(now: number): Turn | undefined {
    for (const lane of this.#pausing) if (now >= lane.retryAt!) return lane as Turn;
    return undefined;
  }

  #nextLane(): Lane | undefined {
    if (this.#isSerial) {
      const first = this.#order.at(0)?.message;
      return first === undefined || this.running + this.#pausing.size > 0 ? undefined : this.#laneOf(first);
    }
    if (this.#isFarAhead) return this.#firstLane;
    const plain = this.#isReady(this.#plain) ? this.#plain : undefined;
    if (this.#ready.size === 0) return plain;
    this.#plainIsNext = !this.#plainIsNext;
    if (plain !== undefined && this.#plainIsNext) return plain;
    const [keyed] = this.#ready;
    return keyed;
  }

  /** As much as may be is finished while an earlier message is not: a restart would repeat all of it. */
  get #isFarAhead(): boolean {
    return this.#order.length - this.queued - this.running - this.#pausing.size >= this.#limits.maxAhead;
  }

  /** The lane of the first message that is not finished, if that may begin. */
  get #firstLane(): Lane | undefined {
    const first = this.#order.at(0)?.message;
    const lane = first === undefined ? undefined : this.#laneOf(first);
    return lane !== undefined && this.#isReady(lane) && lane.queue.at(0)?.message === first ? lane : undefined;
  }

  #begun(now: number): void {
    if (this.running + this.#pausing.size === 0) this.progressAt = now;
    this.running += 1;
  }

  /** Moves over what is finished, in order, and has it committed. */
  #moveOn(): void {
    const before = this.handled;
    for (let first = this.#order.at(0); first !== undefined && first.message === undefined; first = this.#order.at(0)) {
      this.#order.shift();
      this.#moveOver(first);
    }
    if (this.handled !== before && this.#toCommit) this.#effects.commit(this.handled, undefined);
    this.#toCommit = false;
  }

  /** Something was moved over that is not committed with a dead letter. */
  #toCommit = false;

  #moveOver({ position, dead }: Place): void {
    if (position === undefined) return;
    this.handled = position;
    this.#uncommitted += 1;
    this.#toCommit = dead === undefined;
    if (dead !== undefined) this.#effects.commit(position, dead);
  }

  #mayBegin(message: IncomingMessage): boolean {
    if (message.position === undefined) return true;
    if (this.#uncommitted >= this.#window) {
      this.#blocked = true;
      return false;
    }
    if (this.#count === undefined || this.#count.state === "known") return true;
    if (this.#count.state === "needed") {
      this.#count.state = "asked";
      this.#effects.countAttempt();
    }
    return false;
  }
}

/** The dead letter that a message becomes by this result; undefined if it was handled. */
function deadMessage(message: IncomingMessage, result: HandlerResult, attempts: number): DeadMessage | undefined {
  if (message.position === undefined || !("errorCode" in result)) return undefined;
  const { errorCode, errorMessage, plain = message.payload } = result;
  return { message, payload: plain, errorCode, errorMessage, attempts };
}
