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
import { comparePositions, type IncomingMessage, memoryBytes, type Position, type StoredRow } from "./messages.js";

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
  /** Highest number of the cursor's epoch whose message has become a row of the queue. */
  #queued: Position;

  /**
   * @param cursor committed cursor, read after the lease was taken
   */
  constructor(cursor: Position, limits: ListenerLimits, effects: ListenerEffects) {
    this.accepted = cursor;
    this.#limits = limits;
    this.#effects = effects;
    this.handling = new Handling(cursor, limits, effects);
    this.#queued = limits.hasRows ? cursor : { epoch: 0, number: 0 };
  }

  /** Committed cursor. */
  get committed(): Position {
    return this.handling.cursor;
  }

  /** True if the current connection is live. */
  get isLive(): boolean {
    return this.#link?.live ?? false;
  }

  /** Number of accepted or held messages that wait for the handler, or leave. */
  get waitingMessages(): number {
    return this.handling.queued + this.#held.length;
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

  /**
   * Fields of the Welcome for a sender. Its cursor is always the committed one.
   *
   * @param backlog number of rows in the store above the watermark
   */
  welcome(backlog: number): Pick<Welcome, "cursorEpoch" | "cursor" | "backlog" | "credit" | "queued"> {
    const { epoch, number } = this.handling.cursor;
    return {
      cursorEpoch: epoch,
      cursor: number,
      backlog,
      credit: this.#limits.creditBytes,
      queued: this.#queuedIn(epoch),
    };
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
    if (link === undefined || link.connection !== connection) return;
    let numberedBytes = 0;
    for (const message of messages) {
      if (message.position !== undefined) numberedBytes += message.payload.length;
      this.#take(message, link.live, now);
    }
    const last = messages.at(-1)?.position;
    if (last !== undefined) link.flights.push(last.number, numberedBytes);
    this.#limitReading(link);
    this.#reportBusy(now);
    this.#signalReady();
  }

  /**
   * Returns true if the messages of a batch can go to the handler directly, one after another, without the queue. This
   * requires that no message before them is queued, held, running or suspected. The caller then reports the
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
    this.#take(message, true, now);
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
  onRows(rows: readonly StoredRow[], remaining: number, now: number): void {
    this.#querying = false;
    for (const row of rows) this.#takeRow(row, now);
    this.#backlog = remaining;
    if (remaining > 0) this.#queryWanted = true;
    else this.#conclude(rows.length === 0);
    this.#release(now);
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

  /** Records the result of a message's handler. A numbered message that is not done leaves the channel. */
  finish(turn: StartedMessage, result: HandlerResult, now: number): void {
    const { running: message, place } = turn;
    const hasLeft = place.leaving !== undefined;
    this.handling.finish(turn, result, now);
    const isHere = message.position === undefined && result.kind === "postponed";
    if (!hasLeft && place.leaving === undefined && !isHere) this.#done(message);
    if (message.position === undefined && "errorCode" in result) {
      this.#effects.dropped(message, result.errorCode, result.errorMessage);
    }
    this.#signalReady();
  }

  /** The cursor is committed, and what leaves with it. */
  onCommitted(cursor: Position, now: number): void {
    const left = this.handling.committed(cursor, now);
    if (left === undefined) return;
    const last = left.at(-1)?.position;
    if (last !== undefined) this.#queued = last;
    for (const message of left) this.#done(message);
    this.#ack();
  }

  /**
   * Answer of the store about lanes.
   *
   * @param left keys of those of which the queue has rows; undefined if it has not answered
   * @param hasRows whether it has any of the channel
   */
  onLanes(left: ReadonlySet<string | undefined> | undefined, hasRows: boolean, now: number): void {
    this.handling.onLanes(left, hasRows, now);
    this.#signalReady();
  }

  /** Handlers have changed: messages of topics that had left as a whole may be handled here now, behind those that the queue still has. */
  handlersChanged(): void {
    this.handling.askAgain();
  }

  /** Has all messages leave that are in front of one that has ended. The caller commits them, and closes the channel. */
  leaveUnfinished(now: number): void {
    this.handling.leaveUnfinished(now);
  }

  /** Stops or resumes the start of messages: while the lease may have expired, and when the peer stops. */
  halt(halted: boolean): void {
    this.isHalted = halted;
    if (this.isHalted) {
      this.#reportBusy(Number.POSITIVE_INFINITY);
      return;
    }
    if (this.#link?.sentBusy === true && !this.isHandling) {
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

  /** Time of the next necessary {@link tick} in ms; Infinity if only an event can change the state. */
  get deadline(): number {
    if (this.isHalted) return this.handling.leavesAt;
    const due = this.handling.deadline;
    if (!this.isHandling) return due;
    const reportsBusy = this.#link !== undefined && !this.#link.sentBusy && this.#waiting > 0;
    return reportsBusy ? Math.min(due, this.handling.progressAt + this.#limits.busyAfterMs) : due;
  }

  tick(now: number): void {
    // A process that stops may wait for a handler for long, and be killed then.
    if (this.isHalted) {
      this.handling.leaveDue(now);
      return;
    }
    this.#reportBusy(now);
    this.handling.tick(now);
    this.#signalReady();
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
      queued: this.#queuedIn(epoch),
    });
  }

  #queuedIn(epoch: number): number {
    return this.#queued.epoch === epoch ? this.#queued.number : 0;
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

  /** The message has ended here. */
  #done(message: IncomingMessage): void {
    if (message.fromWire) this.#releaseBytes(message);
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
  #take(message: IncomingMessage, live: boolean, now: number): void {
    const { position, payload } = message;
    this.waitingWireBytes += payload.length;
    this.waitingMemoryBytes += this.#bytesOf(message);
    if (position === undefined) {
      if (live && this.#held.length > 0) this.#held.push(message);
      else this.handling.push(message, now);
    } else if (comparePositions(position, this.accepted) <= 0) this.#releaseBytes(message);
    else if (this.#held.length === 0 && this.#isNext(position.epoch, position.number))
      this.#accept(message, position, now);
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
  #takeRow(row: StoredRow, now: number): void {
    const { epoch, number } = row.position;
    if (comparePositions(row.position, this.accepted) <= 0) return;
    const before = epoch === this.accepted.epoch ? this.accepted.number : 0;
    if (number > before + 1) this.#effects.gap(epoch, before + 1, number - 1);
    this.#accept(row, row.position, now);
  }

  #accept(message: IncomingMessage, position: Position, now: number): void {
    this.accepted = position;
    this.handling.push(message, now);
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
  #release(now: number): void {
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
      if (isNew) this.#accept(message, position, now);
      else if (position === undefined) this.handling.push(message, now);
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
    const isNewEpoch = this.accepted.number === 0 && !this.isCommitting;
    const isAtCursor = isNewEpoch || comparePositions(this.accepted, this.handling.cursor) === 0;
    if (this.#checkStale && nothingFound && isAtCursor) {
      this.#checkStale = false;
      this.#effects.deleteStale(this.handling.cursor);
    }
  }

  /** Discards held messages. The sender sends them again. */
  #dropHeld(): void {
    for (let message = this.#held.shift(); message; message = this.#held.shift()) {
      // At-most-once messages waited behind a held message. It is gone, so they can start.
      if (message.position === undefined) this.handling.push(message, this.handling.progressAt);
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
    if (!this.isHandling && !this.isHalted) return;
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
}
