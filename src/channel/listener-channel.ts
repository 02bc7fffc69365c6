/**
 * The receiving half of a channel, as a pure state machine: events come in with their time, effects go out.
 *
 *     cursor      committed in Postgres; the only number that is ever told to the sender
 *     handled     the handler is done; its cursor commit is under way
 *     watermark   accepted: in the queue for the handler. Never moves back while the process runs
 *
 * Numbered messages are accepted only as watermark + 1. What comes over the connection above that is held; the gap is
 * filled from the store, and only a query that began after the gap was seen may say that nobody has the numbers. The same
 * holds for the first message of a new epoch, which waits until a query begun after its Hello has shown that no row of an
 * older epoch is left, and for the answer to GoLive.
 *
 * {@link Handling} decides what the handler gets of it when.
 */
import type { Welcome } from "../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { Fifo } from "../runtime/index.js";
import type { HandlerResult, ListenerEffects, ListenerLimits } from "./effects.js";
import { Flights } from "./flights.js";
import { Handling, type Turn } from "./handling.js";
import {
  comparePositions,
  type IncomingMessage,
  memoryBytes,
  type ParkedMessage,
  type Position,
  type StoredRow,
} from "./messages.js";

/** The channel's connection and what was said on it. */
interface Link {
  readonly connection: unknown;
  readonly epoch: number;
  /** Queries begun before GoLive came; undefined before it came. */
  liveAfter: number | undefined;
  live: boolean;
  toldBusy: boolean;
  toldBacklog: number;
  toldCredit: number;
  paused: boolean;
  /** What the sender takes to be in flight. */
  readonly flights: Flights;
}

/** A finding of a query: no older epoch, no gap, or nothing before GoLive is left. */
export type Question = "epoch" | "gap" | "live";

/** Of `creditBytes`: the sender is told of so much more credit at once, and does not wait for the next commit. */
const toldGrowth = 1 / 4;

export class ListenerChannel {
  /** The watermark: the newest accepted position. */
  accepted: Position;
  /** Payload bytes that came over the connection and are not handled, which the credit counts. */
  waitingWireBytes = 0;
  /** The memory that these messages take, which limits reading. */
  waitingMemoryBytes = 0;
  protected readonly handling: Handling;
  readonly #limits: ListenerLimits;
  readonly #effects: ListenerEffects;
  #link: Link | undefined;
  /** Came over the connection above a gap, or behind what did. */
  readonly #held = new Fifo<IncomingMessage>();
  /** The rows left in the store when last asked. */
  #backlog = 0;
  /** A finding of the newest query counts for whatever was asked before it began. */
  #queriesBegun = 0;
  #querying = false;
  #wanted = false;
  /** Queries begun before the gap in front of {@link #held} was seen. */
  #gapAfter: number | undefined;
  /** Queries begun before the Hello of an epoch above the watermark's. */
  #epochAfter: number | undefined;
  /** Rows at or below the cursor may lie in the store. */
  #checkStale = false;
  /** No message is handed out. */
  isHalted = false;
  /** The channel is to be given back: `quiet` is due, waits for marks, or was told. */
  #leaving: "due" | "marking" | "told" | undefined;

  /**
   * @param cursor the committed one, read after the lease was taken
   * @param done what is done beyond it, read at the same time
   */
  constructor(cursor: Position, done: readonly Position[], limits: ListenerLimits, effects: ListenerEffects) {
    this.accepted = cursor;
    this.#limits = limits;
    this.#effects = effects;
    this.handling = new Handling(cursor, done, limits, effects);
  }

  /** The committed cursor. */
  get committed(): Position {
    return this.handling.cursor;
  }

  /** The connection's channel is live. */
  get isLive(): boolean {
    return this.#link?.live ?? false;
  }

  /** Takes what was parked before the channel was opened, in order. To be called first, if at all. */
  restore(parked: readonly ParkedMessage[]): void {
    this.handling.restore(parked);
  }

  /** Messages that are parked, or are to be. */
  get parkedMessages(): number {
    return this.handling.parked;
  }

  /** Messages accepted or held that wait for the handler, or to be tried again, but for parked ones. */
  get waitingMessages(): number {
    return this.#waiting + this.handling.pausing;
  }

  /** Those of them that could begin now if handlers are free. */
  get readyMessages(): number {
    return this.handling.ready;
  }

  /** A handler is running. */
  get isHandling(): boolean {
    return this.handling.running > 0;
  }

  /** Handled messages whose cursor is not committed yet. */
  get isCommitting(): boolean {
    return comparePositions(this.handling.handled, this.handling.cursor) > 0;
  }

  /** The first message is not done yet, and may have been what ended the process, or its session with Postgres. */
  get isUnderSuspicion(): boolean {
    return this.handling.isCounting || this.isCommitting;
  }

  /** Messages begin one after another, behind the commit of the one before. */
  get waitsForCommits(): boolean {
    return this.handling.isSerial;
  }

  /** The start that was counted last has ended nothing so far, and its message is not done. */
  get hasOpenStart(): boolean {
    return this.handling.isCounted || this.isCommitting;
  }

  /**
   * What to welcome a sender with. `backlog` is how many rows the store has above the watermark. The cursor is always the
   * committed one.
   */
  welcome(backlog: number): Pick<Welcome, "cursorEpoch" | "cursor" | "backlog" | "credit"> {
    const { epoch, number } = this.handling.cursor;
    return { cursorEpoch: epoch, cursor: number, backlog, credit: this.#limits.creditBytes };
  }

  /**
   * A sender said Hello, the catalog agrees with it, and it was welcomed. False when a connection of a newer epoch is
   * there.
   */
  onHello(connection: unknown, epoch: number, backlog: number): boolean {
    const older = this.#link;
    if (older !== undefined && older.epoch > epoch) return false;
    if (older !== undefined) {
      this.#link = undefined;
      this.#effects.closeConnection(older.connection);
    }
    this.#dropHeld();
    this.#link = {
      connection,
      epoch,
      liveAfter: undefined,
      live: false,
      toldBusy: false,
      toldBacklog: backlog,
      toldCredit: this.#limits.creditBytes,
      paused: false,
      flights: new Flights(),
    };
    this.#limitReading(this.#link);
    this.#backlog = backlog;
    if (epoch > this.accepted.epoch) this.#epochAfter = this.#queriesBegun;
    if (backlog > 0 || this.#epochAfter !== undefined) this.onAnnounced();
    return true;
  }

  /** Messages from the connection, in the order of the wire; numbered ones are contiguous. */
  onMessages(connection: unknown, messages: readonly IncomingMessage[], now: number): void {
    const link = this.#link;
    if (link === undefined || link.connection !== connection) return;
    let numberedBytes = 0;
    for (const message of messages) {
      if (message.position !== undefined) numberedBytes += message.payload.length;
      this.#take(message, link.live);
    }
    const last = messages.at(-1)?.position;
    if (last !== undefined) link.flights.push(last.number, numberedBytes);
    this.#limitReading(link);
    this.#tellBusy(now);
    this.#signalReady();
  }

  /**
   * Whether the handler may get the messages of a batch one after another as they are, each once the one before is done:
   * none of them is queued. Nothing may be queued, held, parked, running or suspected before them. Then {@link passed} says how
   * far that went, {@link begun} which message was not done at once, and what is left comes by {@link onMessages}.
   *
   * @param firstNumber of the first message; 0: at most once
   */
  passes(connection: unknown, epoch: number, firstNumber: number): boolean {
    const link = this.#link;
    if (link === undefined || link.connection !== connection || this.isHalted || link.paused || link.toldBusy)
      return false;
    if (this.#held.length > 0 || !this.handling.isFree) return false;
    return firstNumber === 0 || this.#isNext(epoch, firstNumber);
  }

  /**
   * So many messages have come and are done.
   *
   * @param last the last of them; undefined: at most once
   */
  passed(last: Position | undefined, count: number, bytes: number, now: number): void {
    if (last !== undefined) {
      this.accepted = last;
      this.#link?.flights.push(last.number, bytes);
    }
    this.handling.passed(last, count, now);
    const link = this.#link;
    if (link !== undefined && this.#credit(link) >= link.toldCredit + this.#limits.creditBytes * toldGrowth)
      this.#ack();
  }

  /** The message behind those that are {@link passed} has begun like them, and is to be answered by {@link finish}. */
  begun(message: IncomingMessage, now: number): Turn {
    this.#take(message, true);
    if (message.position !== undefined) this.#link?.flights.push(message.position.number, message.payload.length);
    return this.handling.take(now)!;
  }

  onGoLive(connection: unknown): void {
    const link = this.#link;
    if (link === undefined || link.connection !== connection || link.liveAfter !== undefined) return;
    link.liveAfter = this.#queriesBegun;
    this.onAnnounced();
  }

  /** The connection ended. What was accepted stays: numbers make the stored copies harmless. */
  onClosed(connection: unknown): void {
    if (this.#link === undefined || this.#link.connection !== connection) return;
    this.#link = undefined;
    this.#dropHeld();
  }

  /**
   * The store may have rows: an announcement, a new session of notifications, or the first query at the start. It is asked
   * now, or when there is room.
   */
  onAnnounced(): void {
    this.#wanted = true;
    this.retryQuery();
  }

  /** The slow poll found rows of this channel; leftovers at or below the cursor are removed. */
  onPolled(): void {
    this.#checkStale = true;
    this.onAnnounced();
  }

  /** What a query found: rows above the position it was asked for, in order, and how many are left behind them. */
  onRows(rows: readonly StoredRow[], remaining: number): void {
    this.#querying = false;
    for (const row of rows) this.#takeRow(row);
    this.#backlog = remaining;
    if (remaining > 0) this.#wanted = true;
    else this.#conclude(rows.length === 0);
    this.#release();
    // What was held and has come from the store, too, takes no room any more.
    if (this.#link?.paused) this.#limitReading(this.#link);
    this.#tellBacklog();
    this.#signalReady();
    this.retryQuery();
  }

  onQueryFailed(): void {
    this.#querying = false;
    this.#wanted = true;
  }

  /** Asks the store what is wanted, unless a query is under way, or the queue of the handler has no room for more rows. */
  retryQuery(): void {
    const { refillBelow, refillBelowBytes } = this.#limits;
    const { queued, queuedBytes } = this.handling;
    if (!this.#wanted || this.#querying || queued > refillBelow || queuedBytes > refillBelowBytes) return;
    this.#wanted = false;
    this.#querying = true;
    this.#queriesBegun += 1;
    this.#effects.query(this.accepted);
  }

  /** {@link take} may have something. */
  get hasTurn(): boolean {
    return !this.isHalted && this.handling.hasTurn;
  }

  /**
   * The next message for the handler, which must be answered by {@link finish}; undefined while there is none. Where messages
   * have keys there may be several at a time.
   */
  take(now: number): Turn | undefined {
    return this.isHalted ? undefined : this.handling.take(now);
  }

  /** How often the message that is to be tried again was begun; undefined when no message waits for that. */
  get startsBefore(): number | undefined {
    return this.handling.startsBefore;
  }

  /** How often the message may be begun whose starts are counted. */
  get maxStarts(): number {
    const { first } = this.handling;
    return first === undefined ? 1 : this.#limits.retryOf(first).attempts;
  }

  /** A message has been begun more often than it may be: its handler is not to be called again. */
  isExhausted({ attempts, running }: Turn): boolean {
    return attempts > this.#limits.retryOf(running).attempts;
  }

  /** The handler of a message has ended. */
  finish(turn: Turn, result: HandlerResult, now: number): void {
    const handling = this.handling;
    const { running: message, place } = turn;
    if (result.kind !== "done" && handling.triesAgain(turn, result, now)) {
      if (result.kind !== "postponed") this.#tellBusy(now);
      this.#tellQuiet();
      return;
    }
    handling.end(turn, result, now);
    this.#done(message, place.parked !== undefined);
    if (message.position === undefined && "errorCode" in result) {
      this.#effects.dropped(message, result.errorCode, result.errorMessage);
    }
    this.#tellQuiet();
  }

  /** The cursor is surely committed. */
  onCommitted(cursor: Position): void {
    if (!this.handling.committed(cursor)) return;
    this.#ack();
    if (this.handling.isBlocked) {
      this.handling.isBlocked = false;
      this.#signalReady();
    }
    this.#tellQuiet();
  }

  /** The store has messages that were given to `park`. */
  onParked(positions: readonly Position[]): void {
    for (const message of this.handling.onParked(positions)) this.#done(message, false);
    this.#signalReady();
  }

  /** So many messages that were given to `unpark` are removed. */
  onUnparked(count: number): void {
    this.handling.unparking -= count;
    this.#tellQuiet();
  }

  /**
   * A start of a parked message is counted in the store, which makes `starts`; 0: the message is not there any more; undefined: it
   * could not be counted, and is asked for again.
   */
  onParkedCounted(starts: number | undefined): void {
    this.handling.parkedCounted(starts);
    this.#signalReady();
    this.#tellQuiet();
  }

  /** What was given to `mark` has its marks. */
  onMarked(): void {
    if (this.#leaving !== "marking") return;
    this.#leaving = "told";
    this.#effects.quiet();
  }

  /**
   * No handler runs, and none will be begun: what is finished beyond an unfinished message gets marks, so that whoever opens
   * the channel next does not repeat it.
   *
   * @returns whether there was anything to mark
   */
  mark(): boolean {
    const done = this.handling.finishedBeyond;
    if (done.length > 0) this.#effects.mark(done);
    return done.length > 0;
  }

  /** A start of the first message is counted in the store, which makes `starts`; undefined: it could not be, and is asked for again. */
  onAttemptCounted(starts: number | undefined): void {
    this.handling.counted(starts);
    this.#signalReady();
    this.#tellQuiet();
  }

  /** Stops or resumes handing out messages: the lease is not surely held, or the peer stops. */
  halt(halted: boolean): void {
    this.isHalted = halted || this.#leaving !== undefined;
    if (this.isHalted) {
      this.#tellBusy(Number.POSITIVE_INFINITY);
      return;
    }
    if (this.#link?.toldBusy === true && !this.#isOccupied) {
      this.#link.toldBusy = false;
      this.#ack();
    }
    this.#signalReady();
  }

  /**
   * The channel is to be given back to another listener, which will go on behind the committed cursor and its marks. So no
   * message begins any more; when no handler runs and all that is handled is committed, `quiet` says that the owner may change.
   */
  giveBack(): void {
    this.#leaving ??= "due";
    this.halt(true);
    this.#tellQuiet();
  }

  /** The moment at which {@link tick} has something to do, in ms; Infinity when only an event can change anything. */
  get deadline(): number {
    const handling = this.handling;
    if (this.isHalted) return Number.POSITIVE_INFINITY;
    const retry = handling.retryDue;
    if (!this.#isOccupied) return retry;
    const speak = this.#link !== undefined && !this.#link.toldBusy && this.#waiting > 0;
    return speak ? Math.min(retry, handling.progressAt + this.#limits.busyAfterMs) : retry;
  }

  /** Time has passed. */
  tick(now: number): void {
    this.#tellBusy(now);
    if (this.handling.signalRetry(now)) this.#signalReady();
  }

  #tellQuiet(): void {
    if (this.#leaving !== "due" || this.isHandling || this.isCommitting) return;
    if (this.handling.isAsking || this.handling.unparking > 0) return;
    this.#leaving = this.mark() ? "marking" : "told";
    if (this.#leaving === "told") this.#effects.quiet();
  }

  /** Sends an Ack with what is known. Its number is always the committed one. */
  #ack(): void {
    const link = this.#link;
    if (link === undefined) return;
    const { epoch, number } = this.handling.cursor;
    const backlog = this.#backlog;
    link.toldBacklog = backlog;
    if (epoch === link.epoch) link.flights.landed(number);
    link.toldCredit = this.#credit(link);
    this.#effects.writeAck(link.connection, {
      epoch,
      number,
      credit: link.toldCredit,
      backlog,
      busy: link.toldBusy,
      live: link.live,
    });
  }

  /**
   * How many payload bytes the sender may have in flight. What is handled takes no room here, and is in flight for the sender
   * until its commit: fast handlers need not wait for that.
   */
  #credit({ flights }: Link): number {
    const { creditBytes, maxCreditGrowth } = this.#limits;
    const uncommitted = Math.max(0, flights.bytes - this.waitingWireBytes);
    return Math.min(creditBytes + uncommitted, creditBytes * maxCreditGrowth);
  }

  get #waiting(): number {
    return this.handling.queued + this.#held.length;
  }

  /** @param forgotten it took no room here any more */
  #done(message: IncomingMessage, forgotten: boolean): void {
    if (message.fromWire && !forgotten) this.#forget(message);
    const link = this.#link;
    if (link !== undefined) {
      if (link.paused) this.#limitReading(link);
      if (link.toldBusy && !this.isHalted) {
        link.toldBusy = false;
        // An at-most-once message moves no cursor, so no other Ack would take the word back.
        if (message.position === undefined) this.#ack();
      }
      if (this.#credit(link) >= link.toldCredit + this.#limits.creditBytes * toldGrowth) this.#ack();
    }
    this.retryQuery();
  }

  /** A message came over the connection, which is live or not. */
  #take(message: IncomingMessage, live: boolean): void {
    const { position, payload } = message;
    this.waitingWireBytes += payload.length;
    this.waitingMemoryBytes += this.#bytesOf(message);
    if (position === undefined) {
      if (live && this.#held.length > 0) this.#held.push(message);
      else this.handling.push(message);
    } else if (comparePositions(position, this.accepted) <= 0) this.#forget(message);
    else if (this.#held.length === 0 && this.#isNext(position.epoch, position.number)) this.#accept(message, position);
    else {
      this.#held.push(message);
      if (this.#gapAfter !== undefined || position.epoch !== this.accepted.epoch) return;
      this.#gapAfter = this.#queriesBegun;
      this.onAnnounced();
    }
  }

  /** A row of a query whose snapshot held every row of older epochs that there is. */
  #takeRow(row: StoredRow): void {
    const { epoch, number } = row.position;
    if (comparePositions(row.position, this.accepted) <= 0) return;
    const before = epoch === this.accepted.epoch ? this.accepted.number : 0;
    if (number > before + 1) this.#effects.gap(epoch, before + 1, number - 1);
    this.#accept(row, row.position);
  }

  #accept(message: IncomingMessage, position: Position): void {
    this.accepted = position;
    if (this.handling.push(message) && message.fromWire) this.#forget(message);
  }

  #isNext(epoch: number, number: number): boolean {
    return epoch === this.accepted.epoch && number === this.accepted.number + 1;
  }

  /** A message that came over the connection is handled, or not needed. */
  #forget(message: IncomingMessage): void {
    this.waitingWireBytes -= message.payload.length;
    this.waitingMemoryBytes -= this.#bytesOf(message);
  }

  #bytesOf(message: IncomingMessage): number {
    return memoryBytes(message, this.#limits.messageOverheadBytes);
  }

  /** Accepts what is held and now in order, and notes the gap that is left. */
  #release(): void {
    this.#gapAfter = undefined;
    for (let message = this.#held.at(0); message; message = this.#held.at(0)) {
      const { position } = message;
      const isNew = position !== undefined && comparePositions(position, this.accepted) > 0;
      if (isNew && !this.#isNext(position.epoch, position.number)) {
        if (position.epoch === this.accepted.epoch) {
          this.#gapAfter = this.#queriesBegun;
          this.#wanted = true;
        }
        return;
      }
      this.#held.shift();
      if (isNew) this.#accept(message, position);
      else if (position === undefined) this.handling.push(message);
      else this.#forget(message);
    }
  }

  /** Whether what the newest query has found counts for what was asked when `begunBefore` had begun: it began afterwards. */
  protected concludes(_question: Question, begunBefore: number): boolean {
    return this.#queriesBegun > begunBefore;
  }

  /** The store has nothing above the watermark, as the newest query saw it. */
  #conclude(nothingFound: boolean): void {
    const link = this.#link;
    if (this.#epochAfter !== undefined && this.concludes("epoch", this.#epochAfter)) {
      this.#epochAfter = undefined;
      if (link !== undefined && link.epoch > this.accepted.epoch) this.accepted = { epoch: link.epoch, number: 0 };
    }
    const first = this.#held.at(0)?.position;
    if (first !== undefined && this.#gapAfter !== undefined && this.concludes("gap", this.#gapAfter)) {
      const { epoch, number } = this.accepted;
      if (first.epoch === epoch && first.number > number + 1) {
        this.#effects.gap(epoch, number + 1, first.number - 1);
        this.accepted = { epoch, number: first.number - 1 };
      }
    }
    if (link?.liveAfter !== undefined && !link.live && this.concludes("live", link.liveAfter)) {
      link.live = true;
      this.#ack();
    }
    if (this.#checkStale && nothingFound && comparePositions(this.accepted, this.handling.cursor) === 0) {
      this.#checkStale = false;
      this.#effects.deleteStale(this.handling.cursor);
    }
  }

  /** What was held comes again. */
  #dropHeld(): void {
    for (let message = this.#held.shift(); message; message = this.#held.shift()) {
      // At-most-once messages were in order behind what is held; now nothing comes before them any more.
      if (message.position === undefined) this.handling.push(message);
      else this.#forget(message);
    }
    this.#gapAfter = undefined;
    this.#signalReady();
  }

  /** A sender that stores because of a long backlog hears when it has become short. */
  #tellBacklog(): void {
    const link = this.#link;
    if (link === undefined || link.liveAfter !== undefined) return;
    const short = this.#limits.shortBacklogRows;
    if (link.toldBacklog > short && this.#backlog <= short) this.#ack();
  }

  #tellBusy(now: number): void {
    const link = this.#link;
    if (link === undefined || link.toldBusy || this.#waiting === 0) return;
    if (!this.#isOccupied && !this.isHalted) return;
    if (!this.isHalted && now < this.handling.progressAt + this.#limits.busyAfterMs) return;
    link.toldBusy = true;
    this.#ack();
  }

  /**
   * Beyond twice the credit in memory the socket is not read: at-most-once messages have no credit, and that of others counts
   * nothing but payloads.
   */
  #limitReading(link: Link): void {
    const limit = this.#limits.creditBytes * 2;
    const paused = this.waitingMemoryBytes > (link.paused ? limit / 2 : limit);
    if (paused === link.paused) return;
    link.paused = paused;
    this.#effects.pauseReading(link.connection, paused);
  }

  /** There may be something to {@link take}. */
  #signalReady(): void {
    if (this.hasTurn) this.#effects.ready();
  }

  /** A message is in the handler, or waits to be tried again. */
  get #isOccupied(): boolean {
    return this.handling.running + this.handling.pausing > 0;
  }
}
