/**
 * What a listener's channel has accepted and not finished: the queue, the message in the handler with its attempts, and
 * how far handlers may run ahead of the committed cursor.
 *
 * After an unclean exit a message may have been what killed the process. The first numbered one then begins only when its
 * attempt is counted in the store, and behind it one, two, four, … messages are handled before the next waits for the
 * commit of those before: each crash at least halves the way to the message that kills, until it is the first and its
 * count ends it.
 *
 * A message whose handler's session with Postgres has ended may have been what ended it. It begins again only when all its
 * starts are counted, the earlier ones in this process included.
 */
import { Fifo } from "../runtime/index.js";
import type { HandlerResult, ListenerEffects, ListenerLimits } from "./effects.js";
import { comparePositions, type DeadMessage, type IncomingMessage, type Position } from "./messages.js";

/** From here on a channel that began carefully runs freely. */
const careFreeWindow = 65_536;

export class Handling {
  readonly #queue = new Fifo<IncomingMessage>();
  /** Payload bytes in the queue. */
  queuedBytes = 0;
  /** Committed in the store; moves only forward. */
  cursor: Position;
  /** The handler is done, or was given up; the cursor commit is under way. */
  handled: Position;
  /** In the handler, or waiting to be tried again. */
  running: IncomingMessage | undefined;
  runningSince = 0;
  attempts = 0;
  retryAt: number | undefined;
  /** That the retry is due was signalled; {@link take} was not called since. */
  #retrySignalled = false;
  /** So many numbered messages may be finished ahead of the committed cursor. */
  #window: number;
  #uncommitted = 0;
  /** The count of the first message's starts, while it may have killed the process, or its session, before. */
  #count: { state: "needed" | "asked" | "known"; starts: number } | undefined;
  /** A message waits for the commit of those before. */
  #blocked = false;

  readonly #limits: ListenerLimits;
  readonly #effects: Pick<ListenerEffects, "countAttempt">;

  constructor(cursor: Position, limits: ListenerLimits, effects: Pick<ListenerEffects, "countAttempt">) {
    this.#limits = limits;
    this.#effects = effects;
    this.cursor = cursor;
    this.handled = cursor;
    this.#window = limits.transactional || limits.careful ? 1 : Infinity;
    if (limits.careful) this.#count = { state: "needed", starts: 0 };
  }

  get queued(): number {
    return this.#queue.length;
  }

  /** The first message, whose starts are counted, is not finished. */
  get isCounting(): boolean {
    return this.#count !== undefined;
  }

  /** The start of the first message is counted, and has not ended the process or its session. */
  get isCounted(): boolean {
    return this.#count?.state === "known";
  }

  push(message: IncomingMessage): void {
    this.#queue.push(message);
    this.queuedBytes += message.payload.length;
  }

  /** The next message, whose handler begins now; undefined when there is none, or it must wait. */
  take(now: number): IncomingMessage | undefined {
    const again = this.running;
    if (again !== undefined) {
      if (this.retryAt === undefined || now < this.retryAt || !this.#mayBegin(again)) return undefined;
      this.retryAt = undefined;
      this.#retrySignalled = false;
      this.attempts = Math.max(this.attempts + 1, this.#count?.starts ?? 0);
    } else {
      const next = this.#queue.at(0);
      if (next === undefined || !this.#mayBegin(next)) return undefined;
      this.#queue.shift();
      this.queuedBytes -= next.payload.length;
      this.running = next;
      this.attempts = this.#count === undefined || next.position === undefined ? 1 : this.#count.starts;
    }
    this.runningSince = now;
    return this.running;
  }

  /** Whether the message last taken is to be tried again; if so, when is settled. */
  triesAgain(result: HandlerResult, now: number): boolean {
    const { maxAttempts } = this.#limits;
    if (result.kind === "postponed") this.attempts -= 1;
    else if (this.running?.position === undefined) return false;
    else if (result.kind === "failed") {
      if (this.attempts >= maxAttempts) return false;
    } else if (result.kind === "sessionEnded") {
      // Unless its last start was counted as that, and so was alone, it may have been another message's doing.
      if (this.isCounted && this.#count!.starts >= maxAttempts) return false;
      this.attempts = Math.min(this.attempts, maxAttempts - 1);
      this.#count = { state: "needed", starts: 0 };
    } else return false;
    this.retryAt = now + this.#limits.retryDelayMs * 2 ** Math.max(0, this.attempts - 1);
    this.#retrySignalled = false;
    return true;
  }

  /** The message last taken is finished. A numbered one that was not handled is a dead letter. */
  end(message: IncomingMessage, result: HandlerResult): DeadMessage | undefined {
    const attempts = Math.min(this.attempts, this.#limits.maxAttempts);
    this.running = undefined;
    this.attempts = 0;
    if (message.position === undefined) return undefined;
    this.handled = message.position;
    this.#count = undefined;
    if (result.kind === "committed") {
      this.cursor = message.position;
      this.#uncommitted = 0;
      return undefined;
    }
    this.#uncommitted += 1;
    if (result.kind === "done" || result.kind === "postponed") return undefined;
    return { message, errorCode: result.errorCode, errorMessage: result.errorMessage, attempts };
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
    if (this.#count?.state === "asked") this.#count = { state: starts > this.attempts ? "known" : "needed", starts };
  }

  /** The attempt could not be counted; the next {@link take} asks again. */
  countFailed(): void {
    if (this.#count?.state === "asked") this.#count.state = "needed";
  }

  /** When the retry is due; Infinity without one, or once it was signalled. */
  get retryDue(): number {
    return this.#retrySignalled ? Infinity : (this.retryAt ?? Infinity);
  }

  /** Whether the retry is due and was not signalled before. */
  signalRetry(now: number): boolean {
    if (now < this.retryDue) return false;
    this.#retrySignalled = true;
    return true;
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
