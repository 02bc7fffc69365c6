/**
 * The receiving half of a channel as a pure state machine: events come in with their time, effects go out.
 *
 *     cursor      committed in Postgres; the only number that is sent to the sender
 *     handled     the handler is done; the cursor commit is pending
 *     watermark   accepted into the handler's queue; never moves back while the process runs
 *
 * Numbered messages are accepted only as watermark + 1. Messages that arrive over the connection above that number are
 * held. The store fills the gap. Only a query that started after the gap was seen can show that the missing numbers
 * exist nowhere. The same rule holds for the answer to GoLive, and for the first message of a new epoch: the message
 * waits until a query that started after the Hello of its epoch has shown that no row of an older epoch is left.
 *
 * {@link Handling} schedules the accepted messages for the handler.
 */
import type { Welcome } from "../../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { Fifo } from "../../foundation/runtime/index.js";
import type { HandlerResult, ListenerEffects, ListenerLimits } from "./effects.js";
import { Flights } from "./flights.js";
import { Handling, type StartedMessage } from "./handling.js";
import {
  comparePositions,
  type IncomingMessage,
  memoryBytes,
  type ParkedMessage,
  type Position,
  type StoredRow,
} from "./messages.js";

/** Connection of the channel, with the values last sent to its sender. */
interface Link {
  readonly connection: unknown;
  readonly epoch: number;
  /** Number of queries started before GoLive arrived; undefined before GoLive. */
  liveAfter: number | undefined;
  live: boolean;
  sentBusy: boolean;
  sentBacklog: number;
  grantedCredit: number;
  paused: boolean;
  /** Messages in flight, as the sender counts them. */
  readonly flights: Flights;
}

/** Conclusion that an empty query result allows: no older epoch, no gap, or no stored row from before GoLive. */
export type Question = "epoch" | "gap" | "live";

/** Fraction of `creditBytes` by which credit must grow to be granted at once, before the next commit. */
const earlyGrantFraction = 1 / 4;

export class ListenerChannel {
  /** Watermark: the newest accepted position. */
  accepted: Position;
  /** Payload bytes that came over the connection and are not handled. The credit counts them. */
  waitingWireBytes = 0;
  /**
   * Memory in bytes of the messages that {@link waitingWireBytes} counts. Above a limit, reading from the connection
   * pauses.
   */
  waitingMemoryBytes = 0;
  protected readonly handling: Handling;
  readonly #limits: ListenerLimits;
  readonly #effects: ListenerEffects;
  #link: Link | undefined;
  /** Messages from the connection above a gap, or behind such a message. */
  readonly #held = new Fifo<IncomingMessage>();
  /** Rows left in the store, as of the last query. */
  #backlog = 0;
  /** Number of queries started. A result answers only the questions that were open when its query started. */
  #queriesStarted = 0;
  #querying = false;
  #queryWanted = false;
  /** Number of queries started before the gap in front of {@link #held} was seen. */
  #gapAfter: number | undefined;
  /** Number of queries started before the Hello of an epoch above the watermark's. */
  #epochAfter: number | undefined;
  /** True if the store may have rows at or below the cursor. */
  #checkStale = false;
  /** True if no message may start. */
  isHalted = false;
  /** Progress of {@link giveBack}: messages drain, marks are being written, or `drained` was called. */
  #givingBack: "draining" | "marking" | "drained" | undefined;
  /** Number of marks that are being written. */
  #marking = 0;

  /**
   * @param cursor committed cursor, read after the lease was taken
   * @param done positions completed beyond the cursor, read at the same time
   */
  constructor(cursor: Position, done: readonly Position[], limits: ListenerLimits, effects: ListenerEffects) {
    this.accepted = cursor;
    this.#limits = limits;
    this.#effects = effects;
    this.handling = new Handling(cursor, done, limits, effects);
  }

  /** Committed cursor. */
  get committed(): Position {
    return this.handling.cursor;
  }

  /** True if the current connection is live. */
  get isLive(): boolean {
    return this.#link?.live ?? false;
  }

  /**
   * Restores the messages that were parked before the channel was opened, in order. Must be called before any event.
   */
  restore(parked: readonly ParkedMessage[]): void {
    this.handling.restore(parked);
  }

  /** Number of messages that are parked or being parked. */
  get parkedMessages(): number {
    return this.handling.parked;
  }

  /** Number of accepted or held messages that wait for the handler or for a retry, without parked messages. */
  get waitingMessages(): number {
    return this.#waiting + this.handling.retrying;
  }

  get isHandling(): boolean {
    return this.handling.running > 0;
  }

  /** Number of running handlers. */
  get runningMessages(): number {
    return this.handling.running;
  }

  /** True if a sender is connected. */
  get isConnected(): boolean {
    return this.#link !== undefined;
  }

  /** True if handled messages are not committed yet. */
  get isCommitting(): boolean {
    return comparePositions(this.handling.handled, this.handling.cursor) > 0;
  }

  /** True if the first message is not done, and may have ended an earlier process or its handler's Postgres session. */
  get isUnderSuspicion(): boolean {
    return this.handling.isCounting || this.isCommitting;
  }

  /** True if messages start one after another, each after the commit of the previous message. */
  get waitsForCommits(): boolean {
    return this.handling.isSerial;
  }

  /**
   * True if the message whose start was counted last is not done, and the start ended neither the process nor the
   * handler's Postgres session.
   */
  get hasOpenStart(): boolean {
    return this.handling.isCounted || this.isCommitting;
  }

  /**
   * Fields of the Welcome for a sender. Its cursor is always the committed one.
   *
   * @param backlog number of rows in the store above the watermark
   */
  welcome(backlog: number): Pick<Welcome, "cursorEpoch" | "cursor" | "backlog" | "credit"> {
    const { epoch, number } = this.handling.cursor;
    return { cursorEpoch: epoch, cursor: number, backlog, credit: this.#limits.creditBytes };
  }

  /**
   * Takes over a connection after Hello, the check of owner and epoch in Postgres, and Welcome. Returns false if a
   * connection of a newer epoch exists.
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
      sentBusy: false,
      sentBacklog: backlog,
      grantedCredit: this.#limits.creditBytes,
      paused: false,
      flights: new Flights(),
    };
    this.#limitReading(this.#link);
    this.#backlog = backlog;
    if (epoch > this.accepted.epoch) this.#epochAfter = this.#queriesStarted;
    if (backlog > 0 || this.#epochAfter !== undefined) this.onAnnounced();
    return true;
  }

  /** Accepts messages from the connection in wire order. Numbered messages are contiguous. */
  onMessages(connection: unknown, messages: readonly IncomingMessage[], now: number): void {
    const link = this.#link;
    if (link === undefined || link.connection !== connection || this.#isLeft) return;
    let numberedBytes = 0;
    for (const message of messages) {
      if (message.position !== undefined) numberedBytes += message.payload.length;
      this.#take(message, link.live);
    }
    const last = messages.at(-1)?.position;
    if (last !== undefined) link.flights.push(last.number, numberedBytes);
    this.#limitReading(link);
    this.#reportBusy(now);
    this.#signalReady();
  }

  /**
   * Returns true if the messages of a batch can go to the handler directly, one after another, without the queue. This
   * requires that no message before them is queued, held, parked, running or suspected. The caller then reports the
   * handled messages to {@link passedThrough}, a message that is still running to {@link startPassedThrough}, and the
   * rest to {@link onMessages}.
   *
   * @param firstNumber number of the first message; 0 for at-most-once messages
   */
  canPassThrough(connection: unknown, epoch: number, firstNumber: number): boolean {
    const link = this.#link;
    if (link === undefined || link.connection !== connection || this.isHalted || link.paused || link.sentBusy)
      return false;
    if (this.#held.length > 0 || !this.handling.isIdle) return false;
    return firstNumber === 0 || this.#isNext(epoch, firstNumber);
  }

  /**
   * Records messages that were handled without the queue.
   *
   * @param last position of the last message; undefined for at-most-once messages
   */
  passedThrough(last: Position | undefined, count: number, bytes: number, now: number): void {
    if (last !== undefined) {
      this.accepted = last;
      this.#link?.flights.push(last.number, bytes);
    }
    this.handling.passedThrough(last, count, now);
    const link = this.#link;
    if (link !== undefined && this.#credit(link) >= link.grantedCredit + this.#limits.creditBytes * earlyGrantFraction)
      this.#ack();
  }

  /**
   * Records the message after the {@link passedThrough} ones, which was started without the queue and still runs. Answer
   * with {@link finish}.
   */
  startPassedThrough(message: IncomingMessage, now: number): StartedMessage {
    this.#take(message, true);
    if (message.position !== undefined) this.#link?.flights.push(message.position.number, message.payload.length);
    return this.handling.take(now)!;
  }

  onGoLive(connection: unknown): void {
    const link = this.#link;
    if (link === undefined || link.connection !== connection || link.liveAfter !== undefined) return;
    link.liveAfter = this.#queriesStarted;
    this.onAnnounced();
  }

  /** The connection closed. Accepted messages stay, because numbers make their stored copies harmless. */
  onClosed(connection: unknown): void {
    if (this.#link === undefined || this.#link.connection !== connection) return;
    this.#link = undefined;
    this.#dropHeld();
  }

  /**
   * The store may have rows: after an announcement, at the start, or after the notification session reconnected.
   * Queries the store now, or when the queue has room.
   */
  onAnnounced(): void {
    this.#queryWanted = true;
    this.retryQuery();
  }

  /** The slow poll found rows of this channel. Rows at or below the cursor will be deleted. */
  onPolled(): void {
    this.#checkStale = true;
    this.onAnnounced();
  }

  /** Result of a query: rows above the requested position, in order, and the number of rows behind them. */
  onRows(rows: readonly StoredRow[], remaining: number): void {
    this.#querying = false;
    if (this.#isLeft) return;
    for (const row of rows) this.#takeRow(row);
    this.#backlog = remaining;
    if (remaining > 0) this.#queryWanted = true;
    else this.#conclude(rows.length === 0);
    this.#release();
    // Held messages that also came from the store no longer use memory.
    if (this.#link?.paused) this.#limitReading(this.#link);
    this.#reportBacklog();
    this.#signalReady();
    this.retryQuery();
  }

  onQueryFailed(): void {
    this.#querying = false;
    this.#queryWanted = true;
  }

  /** Queries the store if a query is wanted, none is pending, and the handler's queue has room for more rows. */
  retryQuery(): void {
    const { refillBelow, refillBelowBytes } = this.#limits;
    const { queued, queuedBytes } = this.handling;
    if (!this.#queryWanted || this.#querying || queued > refillBelow || queuedBytes > refillBelowBytes) return;
    this.#queryWanted = false;
    this.#querying = true;
    this.#queriesStarted += 1;
    this.#effects.query(this.accepted);
  }

  /** True if {@link take} can return a message: one can start, or a retry may be due. */
  get canTake(): boolean {
    return !this.isHalted && this.handling.canTake;
  }

  /**
   * Returns the next message to start; undefined if none can start. Answer each with {@link finish}. Messages with
   * different keys can run at the same time.
   */
  take(now: number): StartedMessage | undefined {
    return this.isHalted ? undefined : this.handling.take(now);
  }

  /** Records the result of a message's handler. */
  finish(turn: StartedMessage, result: HandlerResult, now: number): void {
    const handling = this.handling;
    const { running: message, place } = turn;
    if (result.kind !== "done" && handling.scheduleRetry(turn, result, now)) {
      if (result.kind !== "postponed") this.#reportBusy(now);
      this.#reportDrained();
      return;
    }
    handling.end(turn, result, now);
    this.#done(message, place.parked !== undefined);
    if (message.position === undefined && "errorCode" in result) {
      this.#effects.dropped(message, result.errorCode, result.errorMessage);
    }
    this.#reportDrained();
  }

  /** The cursor is committed. */
  onCommitted(cursor: Position): void {
    if (!this.handling.committed(cursor)) return;
    this.#ack();
    if (this.handling.isBlocked) {
      this.handling.isBlocked = false;
      this.#signalReady();
    }
    this.#reportDrained();
  }

  /** The store has these parked messages. */
  onParked(positions: readonly Position[]): void {
    for (const message of this.handling.onParked(positions)) this.#done(message, false);
    this.#signalReady();
    this.#reportDrained();
  }

  /** `count` messages passed to `unpark` are deleted. */
  onUnparked(count: number): void {
    this.handling.unparking -= count;
    this.#reportDrained();
  }

  /**
   * Result of counting a start of the first message, or of a parked one.
   *
   * @param starts number of starts including this one; 0 if a parked message no longer exists; undefined if the count
   * failed and must be requested again
   */
  onStartCounted(starts: number | undefined, isParked = false): void {
    if (isParked) this.handling.parkedCounted(starts);
    else this.handling.counted(starts);
    this.#signalReady();
    this.#reportDrained();
  }

  /** `count` of the marks passed to `mark` are written. */
  onMarked(count: number): void {
    this.#marking -= count;
    if (this.#givingBack !== "marking" || this.#marking > 0) return;
    this.#givingBack = "drained";
    this.#effects.drained();
  }

  /**
   * Writes marks for all messages that are completed beyond an unfinished message, so that the next owner of the channel
   * does not repeat them. No handler may run or start.
   */
  mark(): void {
    this.#mark(this.handling.takeAllToMark());
  }

  #mark(done: readonly Position[]): void {
    if (done.length === 0) return;
    this.#marking += done.length;
    this.#effects.mark(done);
  }

  /** Stops or resumes the start of messages: while the lease may have expired, and when the peer stops. */
  halt(halted: boolean): void {
    this.isHalted = halted || this.#givingBack !== undefined;
    if (this.isHalted) {
      this.#reportBusy(Number.POSITIVE_INFINITY);
      return;
    }
    if (this.#link?.sentBusy === true && !this.#isOccupied) {
      this.#link.sentBusy = false;
      this.#ack();
    }
    this.#signalReady();
  }

  /** Stops starting messages for good. Running ones can still be finished. */
  close(): void {
    this.halt(true);
    this.handling.close();
  }

  /**
   * Prepares the transfer of the channel to another listener, which continues from the committed cursor and the marks.
   * No message starts any more. When no handler runs, nothing is being parked and the cursor is committed, `drained` allows
   * the change of owner.
   */
  giveBack(): void {
    this.#givingBack ??= "draining";
    this.halt(true);
    this.#reportDrained();
  }

  /** Time of the next necessary {@link tick} in ms; Infinity if only an event can change the state. */
  get deadline(): number {
    const handling = this.handling;
    if (this.isHalted) return handling.markDue;
    const due = Math.min(handling.retryDue, handling.markDue);
    if (!this.#isOccupied) return due;
    const reportsBusy = this.#link !== undefined && !this.#link.sentBusy && this.#waiting > 0;
    return reportsBusy ? Math.min(due, handling.progressAt + this.#limits.busyAfterMs) : due;
  }

  tick(now: number): void {
    this.#mark(this.handling.takeToMark(now));
    if (this.isHalted) return;
    this.#reportBusy(now);
    if (this.handling.signalRetry(now)) this.#signalReady();
  }

  /**
   * True if the channel leaves with what it has committed. What comes now belongs to the next owner: a message with a
   * mark would move the cursor once more.
   */
  get #isLeft(): boolean {
    return this.#givingBack === "marking" || this.#givingBack === "drained";
  }

  #reportDrained(): void {
    if (this.#givingBack !== "draining" || this.isHandling || this.isCommitting) return;
    if (this.handling.isCountPending || this.handling.unparking > 0 || this.handling.isParking) return;
    this.mark();
    this.#givingBack = this.#marking > 0 ? "marking" : "drained";
    if (this.#givingBack === "drained") this.#effects.drained();
  }

  /** Sends an Ack with the current state. Its number is always the committed cursor. */
  #ack(): void {
    const link = this.#link;
    if (link === undefined) return;
    const { epoch, number } = this.handling.cursor;
    const backlog = this.#backlog;
    link.sentBacklog = backlog;
    if (epoch === link.epoch) link.flights.acknowledge(number);
    link.grantedCredit = this.#credit(link);
    this.#effects.writeAck(link.connection, {
      epoch,
      number,
      credit: link.grantedCredit,
      backlog,
      busy: link.sentBusy,
      live: link.live,
    });
  }

  /**
   * Payload bytes that the sender may have in flight. Handled messages use no memory here, but stay in flight for the
   * sender until their commit. They increase the credit, so that fast handlers need not wait for commits.
   */
  #credit({ flights }: Link): number {
    const { creditBytes, maxCreditGrowth } = this.#limits;
    const uncommitted = Math.max(0, flights.bytes - this.waitingWireBytes);
    return Math.min(creditBytes + uncommitted, creditBytes * maxCreditGrowth);
  }

  get #waiting(): number {
    return this.handling.queued + this.#held.length;
  }

  /** @param isReleased whether the message's bytes are no longer counted */
  #done(message: IncomingMessage, isReleased: boolean): void {
    if (message.fromWire && !isReleased) this.#releaseBytes(message);
    const link = this.#link;
    if (link !== undefined) {
      if (link.paused) this.#limitReading(link);
      if (link.sentBusy && !this.isHalted) {
        link.sentBusy = false;
        // At-most-once messages move no cursor, so no later Ack would withdraw the busy flag.
        if (message.position === undefined) this.#ack();
      }
      if (this.#credit(link) >= link.grantedCredit + this.#limits.creditBytes * earlyGrantFraction) this.#ack();
    }
    this.retryQuery();
  }

  /** @param live whether the message's connection is live */
  #take(message: IncomingMessage, live: boolean): void {
    const { position, payload } = message;
    this.waitingWireBytes += payload.length;
    this.waitingMemoryBytes += this.#bytesOf(message);
    if (position === undefined) {
      if (live && this.#held.length > 0) this.#held.push(message);
      else this.handling.push(message);
    } else if (comparePositions(position, this.accepted) <= 0) this.#releaseBytes(message);
    else if (this.#held.length === 0 && this.#isNext(position.epoch, position.number)) this.#accept(message, position);
    else {
      this.#held.push(message);
      if (this.#gapAfter !== undefined || position.epoch !== this.accepted.epoch) return;
      this.#gapAfter = this.#queriesStarted;
      this.onAnnounced();
    }
  }

  /**
   * Accepts a row of a query. No row of an older epoch can follow, because the query's snapshot contained all of them.
   */
  #takeRow(row: StoredRow): void {
    const { epoch, number } = row.position;
    if (comparePositions(row.position, this.accepted) <= 0) return;
    const before = epoch === this.accepted.epoch ? this.accepted.number : 0;
    if (number > before + 1) this.#effects.gap(epoch, before + 1, number - 1);
    this.#accept(row, row.position);
  }

  #accept(message: IncomingMessage, position: Position): void {
    this.accepted = position;
    if (this.handling.push(message) && message.fromWire) this.#releaseBytes(message);
  }

  #isNext(epoch: number, number: number): boolean {
    return epoch === this.accepted.epoch && number === this.accepted.number + 1;
  }

  /** Stops counting the bytes of a message that is handled or superfluous. */
  #releaseBytes(message: IncomingMessage): void {
    this.waitingWireBytes -= message.payload.length;
    this.waitingMemoryBytes -= this.#bytesOf(message);
  }

  #bytesOf(message: IncomingMessage): number {
    return memoryBytes(message, this.#limits.messageOverheadBytes);
  }

  /** Accepts held messages that are now in order, and records the remaining gap. */
  #release(): void {
    this.#gapAfter = undefined;
    for (let message = this.#held.at(0); message; message = this.#held.at(0)) {
      const { position } = message;
      const isNew = position !== undefined && comparePositions(position, this.accepted) > 0;
      if (isNew && !this.#isNext(position.epoch, position.number)) {
        if (position.epoch === this.accepted.epoch) {
          this.#gapAfter = this.#queriesStarted;
          this.#queryWanted = true;
        }
        return;
      }
      this.#held.shift();
      if (isNew) this.#accept(message, position);
      else if (position === undefined) this.handling.push(message);
      else this.#releaseBytes(message);
    }
  }

  /**
   * Returns true if the newest query can answer a question that was asked after `startedBefore` queries: it started
   * later.
   */
  protected concludes(_question: Question, startedBefore: number): boolean {
    return this.#queriesStarted > startedBefore;
  }

  /** Draws the conclusions of a query that left no row above the watermark. */
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

  /** Discards held messages. The sender sends them again. */
  #dropHeld(): void {
    for (let message = this.#held.shift(); message; message = this.#held.shift()) {
      // At-most-once messages waited behind a held message. It is gone, so they can start.
      if (message.position === undefined) this.handling.push(message);
      else this.#releaseBytes(message);
    }
    this.#gapAfter = undefined;
    this.#signalReady();
  }

  /** Sends an Ack when the backlog has become short, if the sender has not sent GoLive yet. */
  #reportBacklog(): void {
    const link = this.#link;
    if (link === undefined || link.liveAfter !== undefined) return;
    const short = this.#limits.shortBacklogRows;
    if (link.sentBacklog > short && this.#backlog <= short) this.#ack();
  }

  #reportBusy(now: number): void {
    const link = this.#link;
    if (link === undefined || link.sentBusy || this.#waiting === 0) return;
    if (!this.#isOccupied && !this.isHalted) return;
    if (!this.isHalted && now < this.handling.progressAt + this.#limits.busyAfterMs) return;
    link.sentBusy = true;
    this.#ack();
  }

  /**
   * Pauses reading while waiting messages use more than twice the credit in memory. Credit alone does not limit that
   * memory: at-most-once messages need no credit, and credit counts only payloads.
   */
  #limitReading(link: Link): void {
    const limit = this.#limits.creditBytes * 2;
    const paused = this.waitingMemoryBytes > (link.paused ? limit / 2 : limit);
    if (paused === link.paused) return;
    link.paused = paused;
    this.#effects.pauseReading(link.connection, paused);
  }

  /** Signals that {@link take} can return a message. */
  #signalReady(): void {
    if (this.canTake) this.#effects.ready();
  }

  /** True if a message is in the handler or waits for a retry. */
  get #isOccupied(): boolean {
    return this.handling.running + this.handling.retrying > 0;
  }
}
