/**
 * The receiving half of a channel, as a pure state machine: events come in with their time, effects go out.
 *
 *     cursor      committed in Postgres; the only number that is ever told to the sender
 *     handled     the handler is done; its cursor commit is under way
 *     watermark   accepted: in the queue for the handler. Never moves back while the process runs
 *
 * {@link Intake} decides what is accepted, {@link Handling} what the handler gets when; here is what is between them and
 * the sender: the connection, what it was told, and how much of it is read.
 */
import type { Welcome } from "../../generated/ts/codecs/hawser/peer/v1/frames.js";
import type { HandlerResult, ListenerEffects, ListenerLimits } from "./effects.js";
import { Flights } from "./flights.js";
import { Handling, type Turn } from "./handling.js";
import { Intake } from "./intake.js";
import {
  comparePositions,
  type IncomingMessage,
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

/** Of `creditBytes`: the sender is told of so much more credit at once, and does not wait for the next commit. */
const toldGrowth = 1 / 4;

export class ListenerChannel {
  readonly #limits: ListenerLimits;
  readonly #effects: ListenerEffects;
  readonly #intake: Intake;
  readonly #handling: Handling;
  #link: Link | undefined;
  #halted = false;
  /** The channel is to be given back: `quiet` is due, waits for marks, or was told. */
  #leaving: "due" | "marking" | "told" | undefined;

  /**
   * @param cursor the committed one, read after the lease was taken
   * @param done what is done beyond it, read at the same time
   * @param intakeFor makes the intake; for the simulator, which tries out other rules
   */
  constructor(
    cursor: Position,
    done: readonly Position[],
    limits: ListenerLimits,
    effects: ListenerEffects,
    intakeFor = (handling: Handling): Intake => new Intake(cursor, limits, effects, handling),
  ) {
    this.#limits = limits;
    this.#effects = effects;
    this.#handling = new Handling(cursor, done, limits, effects);
    this.#intake = intakeFor(this.#handling);
  }

  /** The committed cursor. */
  get committed(): Position {
    return this.#handling.cursor;
  }

  /** The accepted watermark. */
  get accepted(): Position {
    return this.#intake.watermark;
  }

  /** The connection's channel is live. */
  get isLive(): boolean {
    return this.#link?.live ?? false;
  }

  /** Takes what was parked before the channel was opened, in order. To be called first, if at all. */
  restore(parked: readonly ParkedMessage[]): void {
    this.#handling.restore(parked);
  }

  /** Messages that are parked, or are to be. */
  get parkedMessages(): number {
    return this.#handling.parked;
  }

  /** Messages accepted or held that wait for the handler, or to be tried again, but for parked ones. */
  get waitingMessages(): number {
    return this.#waiting + this.#handling.pausing;
  }

  /** Those of them that could begin now if handlers are free. */
  get readyMessages(): number {
    return this.#handling.ready;
  }

  /** Payload bytes that came over the connection and are not handled. */
  get waitingWireBytes(): number {
    return this.#intake.wireBytes;
  }

  /** A handler is running. */
  get isHandling(): boolean {
    return this.#handling.running > 0;
  }

  /** Handled messages whose cursor is not committed yet. */
  get isCommitting(): boolean {
    return comparePositions(this.#handling.handled, this.#handling.cursor) > 0;
  }

  /** The first message is not done yet, and may have been what ended the process, or its session with Postgres. */
  get isUnderSuspicion(): boolean {
    return this.#handling.isCounting || this.isCommitting;
  }

  /** Messages begin one after another, behind the commit of the one before. */
  get waitsForCommits(): boolean {
    return this.#handling.isSerial;
  }

  /** The start that was counted last has ended nothing so far, and its message is not done. */
  get hasOpenStart(): boolean {
    return this.#handling.isCounted || this.isCommitting;
  }

  /**
   * What to welcome a sender with. `backlog` is how many rows the store has above the watermark. The cursor is always the
   * committed one.
   */
  welcome(backlog: number): Pick<Welcome, "cursorEpoch" | "cursor" | "backlog" | "credit"> {
    const { epoch, number } = this.#handling.cursor;
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
    this.#intake.onHello(epoch, backlog);
    return true;
  }

  /** Messages from the connection, in the order of the wire; numbered ones are contiguous. */
  onMessages(connection: unknown, messages: readonly IncomingMessage[], now: number): void {
    const link = this.#link;
    if (link === undefined || link.connection !== connection) return;
    let numberedBytes = 0;
    for (const message of messages) {
      if (message.position !== undefined) numberedBytes += message.payload.length;
      this.#intake.take(message, link.live);
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
    if (link === undefined || link.connection !== connection || this.#halted || link.paused || link.toldBusy)
      return false;
    return this.#handling.isFree && this.#intake.isFree(epoch, firstNumber);
  }

  /**
   * So many messages have come and are done.
   *
   * @param last the last of them; undefined: at most once
   */
  passed(last: Position | undefined, count: number, bytes: number, now: number): void {
    if (last !== undefined) {
      this.#intake.watermark = last;
      this.#link?.flights.push(last.number, bytes);
    }
    this.#handling.passed(last, count, now);
    const link = this.#link;
    if (link !== undefined && this.#credit(link) >= link.toldCredit + this.#limits.creditBytes * toldGrowth)
      this.#ack();
  }

  /** The message behind those that are {@link passed} has begun like them, and is to be answered by {@link finish}. */
  begun(message: IncomingMessage, now: number): Turn {
    this.#intake.take(message, true);
    if (message.position !== undefined) this.#link?.flights.push(message.position.number, message.payload.length);
    return this.#handling.take(now)!;
  }

  onGoLive(connection: unknown): void {
    const link = this.#link;
    if (link === undefined || link.connection !== connection || link.liveAfter !== undefined) return;
    link.liveAfter = this.#intake.queriesBegun;
    this.#intake.want();
  }

  /** The connection ended. What was accepted stays: numbers make the stored copies harmless. */
  onClosed(connection: unknown): void {
    if (this.#link === undefined || this.#link.connection !== connection) return;
    this.#link = undefined;
    this.#dropHeld();
  }

  /** The store may have rows: an announcement, a new session of notifications, or the first query at the start. */
  onAnnounced(): void {
    this.#intake.want();
  }

  /** The slow poll found rows of this channel; leftovers at or below the cursor are removed. */
  onPolled(): void {
    this.#intake.checkStale = true;
    this.#intake.want();
  }

  /** What a query found: rows above the position it was asked for, in order, and how many are left behind them. */
  onRows(rows: readonly StoredRow[], remaining: number): void {
    const intake = this.#intake;
    const query = intake.takeRows(rows, remaining);
    if (remaining === 0) this.#conclude(query, rows.length === 0);
    intake.release();
    this.#tellBacklog();
    this.#signalReady();
    intake.askIfRoom();
  }

  onQueryFailed(): void {
    this.#intake.onQueryFailed();
  }

  /** Asks the store again after a failure. */
  retryQuery(): void {
    this.#intake.askIfRoom();
  }

  /** No message is handed out. */
  get isHalted(): boolean {
    return this.#halted;
  }

  /** {@link take} may have something. */
  get hasTurn(): boolean {
    return !this.#halted && this.#handling.hasTurn;
  }

  /**
   * The next message for the handler, which must be answered by {@link finish}; undefined while there is none. Where messages
   * have keys there may be several at a time.
   */
  take(now: number): Turn | undefined {
    return this.#halted ? undefined : this.#handling.take(now);
  }

  /** How often the message that is to be tried again was begun; undefined when no message waits for that. */
  get startsBefore(): number | undefined {
    return this.#handling.startsBefore;
  }

  /** How often the message may be begun whose starts are counted. */
  get maxStarts(): number {
    const { first } = this.#handling;
    return first === undefined ? 1 : this.#limits.retryOf(first).attempts;
  }

  /** A message has been begun more often than it may be: its handler is not to be called again. */
  isExhausted({ attempts, running }: Turn): boolean {
    return attempts > this.#limits.retryOf(running).attempts;
  }

  /** The handler of a message has ended. */
  finish(turn: Turn, result: HandlerResult, now: number): void {
    const handling = this.#handling;
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
    if (!this.#handling.committed(cursor)) return;
    this.#ack();
    if (this.#handling.unblock()) this.#signalReady();
    this.#tellQuiet();
  }

  /** The store has messages that were given to `park`. */
  onParked(positions: readonly Position[]): void {
    for (const message of this.#handling.onParked(positions)) this.#done(message, false);
    this.#signalReady();
  }

  /** So many messages that were given to `unpark` are removed. */
  onUnparked(count: number): void {
    this.#handling.unparking -= count;
    this.#tellQuiet();
  }

  /** A start of a parked message is counted in the store, which makes `starts`; 0: the message is not there any more. */
  onParkedCounted(starts: number): void {
    this.#handling.parkedCounted(starts);
    this.#signalReady();
    this.#tellQuiet();
  }

  /** The start could not be counted; it is asked for again. */
  onParkedCountFailed(): void {
    this.#handling.parkedCountFailed();
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
    const done = this.#handling.finishedBeyond;
    if (done.length > 0) this.#effects.mark(done);
    return done.length > 0;
  }

  /** A start of the first message is counted in the store, which makes `starts`. */
  onAttemptCounted(starts: number): void {
    this.#handling.counted(starts);
    this.#signalReady();
    this.#tellQuiet();
  }

  /** The start could not be counted; it is asked for again. */
  onCountFailed(): void {
    this.#handling.countFailed();
    this.#signalReady();
    this.#tellQuiet();
  }

  /** Stops or resumes handing out messages: the lease is not surely held, or the peer stops. */
  halt(halted: boolean): void {
    this.#halted = halted || this.#leaving !== undefined;
    if (this.#halted) {
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
  deadline(): number {
    const handling = this.#handling;
    if (this.#halted) return Number.POSITIVE_INFINITY;
    const retry = handling.retryDue;
    if (!this.#isOccupied) return retry;
    const speak = this.#link !== undefined && !this.#link.toldBusy && this.#waiting > 0;
    return speak ? Math.min(retry, handling.progressAt + this.#limits.busyAfterMs) : retry;
  }

  /** Time has passed. */
  tick(now: number): void {
    this.#tellBusy(now);
    if (this.#handling.signalRetry(now)) this.#signalReady();
  }

  #tellQuiet(): void {
    if (this.#leaving !== "due" || this.isHandling || this.isCommitting) return;
    if (this.#handling.isAsking || this.#handling.unparking > 0) return;
    this.#leaving = this.mark() ? "marking" : "told";
    if (this.#leaving === "told") this.#effects.quiet();
  }

  /** Sends an Ack with what is known. Its number is always the committed one. */
  #ack(): void {
    const link = this.#link;
    if (link === undefined) return;
    const { epoch, number } = this.#handling.cursor;
    const { backlog } = this.#intake;
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
    const uncommitted = Math.max(0, flights.bytes - this.#intake.wireBytes);
    return Math.min(creditBytes + uncommitted, creditBytes * maxCreditGrowth);
  }

  get #waiting(): number {
    return this.#handling.queued + this.#intake.heldMessages;
  }

  /** @param forgotten it took no room here any more */
  #done(message: IncomingMessage, forgotten: boolean): void {
    if (message.fromWire && !forgotten) this.#intake.forget(message);
    const link = this.#link;
    if (link !== undefined) {
      if (link.paused) this.#limitReading(link);
      if (link.toldBusy && !this.#halted) {
        link.toldBusy = false;
        // An at-most-once message moves no cursor, so no other Ack would take the word back.
        if (message.position === undefined) this.#ack();
      }
      if (this.#credit(link) >= link.toldCredit + this.#limits.creditBytes * toldGrowth) this.#ack();
    }
    this.#intake.askIfRoom();
  }

  /** The store has nothing above the watermark, as query number `query` saw it. */
  #conclude(query: number, nothingFound: boolean): void {
    const link = this.#link;
    const intake = this.#intake;
    intake.conclude(query, link?.epoch);
    if (link?.liveAfter !== undefined && !link.live && intake.concludes("live", query, link.liveAfter)) {
      link.live = true;
      this.#ack();
    }
    if (intake.checkStale && nothingFound && comparePositions(intake.watermark, this.#handling.cursor) === 0) {
      intake.checkStale = false;
      this.#effects.deleteStale(this.#handling.cursor);
    }
  }

  #dropHeld(): void {
    this.#intake.dropHeld();
    this.#signalReady();
  }

  /** A sender that stores because of a long backlog hears when it has become short. */
  #tellBacklog(): void {
    const link = this.#link;
    if (link === undefined || link.liveAfter !== undefined) return;
    const short = this.#limits.shortBacklogRows;
    if (link.toldBacklog > short && this.#intake.backlog <= short) this.#ack();
  }

  #tellBusy(now: number): void {
    const link = this.#link;
    if (link === undefined || link.toldBusy || this.#waiting === 0) return;
    if (!this.#isOccupied && !this.#halted) return;
    if (!this.#halted && now < this.#handling.progressAt + this.#limits.busyAfterMs) return;
    link.toldBusy = true;
    this.#ack();
  }

  /** At-most-once messages have no credit: beyond twice the credit the socket is not read. */
  #limitReading(link: Link): void {
    const limit = this.#limits.creditBytes * 2;
    const paused = link.paused ? this.#intake.wireBytes > limit / 2 : this.#intake.wireBytes > limit;
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
    return this.#handling.running + this.#handling.pausing > 0;
  }
}
