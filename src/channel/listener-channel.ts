/**
 * The receiving half of a channel, as a pure state machine: events come in with their time, effects go out.
 *
 *     cursor      committed in Postgres; the only number that is ever told to the sender
 *     handled     the handler is done; its cursor commit is under way
 *     watermark   accepted: in the queue for the handler. Never moves back while the process runs
 *
 * Numbered messages are accepted only as watermark + 1. What comes over the connection above that is held; the gap is
 * filled from the store, and only a query that began after the gap was seen may say that nobody has the numbers.
 * The same holds for the first message of a new epoch, which waits until a query begun after its Hello has shown that
 * no row of an older epoch is left, and for the answer to GoLive.
 */
import { Fifo } from "./fifo.js";
import type {
  DeadMessage,
  HandlerResult,
  IncomingMessage,
  ListenerEffects,
  ListenerLimits,
  StoredRow,
} from "./listener-types.js";
import { comparePositions, type Position } from "./position.js";
import type { WelcomeNews } from "./sender-types.js";

/** The channel's connection and what was said on it. */
interface Link {
  readonly connection: unknown;
  readonly epoch: number;
  /** Queries begun before GoLive came; undefined before it came. */
  liveAfter: number | undefined;
  live: boolean;
  toldBusy: boolean;
  toldBacklog: number;
  paused: boolean;
}

export class ListenerChannel {
  protected readonly limits: ListenerLimits;
  protected readonly effects: ListenerEffects;

  protected cursor: Position;
  protected handled: Position;
  protected watermark: Position;
  protected link: Link | undefined;

  private readonly queue = new Fifo<IncomingMessage>();
  private queueBytes = 0;
  /** From the connection, above the watermark; with at-most-once messages between them once live. */
  private readonly held = new Fifo<IncomingMessage>();
  /** Payload bytes from the connection in `queue`, `held` and `running`. */
  private wireBytes = 0;

  private running: IncomingMessage | undefined;
  private runningSince = 0;
  private attempts = 0;
  private retryAt: number | undefined;
  /** That the retry is due was signalled; whoever takes it has no turn yet. */
  private retrySignalled = false;
  private halted = false;

  /** Queries begun so far; a finding counts for whatever was asked before its query began. */
  protected queriesBegun = 0;
  private querying = false;
  private wanted = false;
  /** The rows left in the store when last asked. */
  private backlog = 0;
  /** Queries begun before the gap in front of `held` was seen. */
  private gapAfter: number | undefined;
  /** Queries begun before the Hello of an epoch above the watermark's. */
  private epochAfter: number | undefined;
  private checkStale = false;

  /** `cursor` is the committed one, read after the lease was taken. */
  constructor(cursor: Position, limits: ListenerLimits, effects: ListenerEffects) {
    this.cursor = cursor;
    this.handled = cursor;
    this.watermark = cursor;
    this.limits = limits;
    this.effects = effects;
  }

  /** The committed cursor. */
  get committed(): Position {
    return this.cursor;
  }

  /** The accepted watermark. */
  get accepted(): Position {
    return this.watermark;
  }

  /** The connection's channel is live. */
  get isLive(): boolean {
    return this.link?.live ?? false;
  }

  /** Messages accepted or held that wait for the handler, or to be tried again. */
  get waitingMessages(): number {
    return this.queue.length + this.held.length + (this.retryAt === undefined ? 0 : 1);
  }

  /** Payload bytes that came over the connection and are not handled. */
  get waitingWireBytes(): number {
    return this.wireBytes;
  }

  /** A handler is running. */
  get isHandling(): boolean {
    return this.running !== undefined && this.retryAt === undefined;
  }

  /** Handled messages whose cursor is not committed yet. */
  get isCommitting(): boolean {
    return comparePositions(this.handled, this.cursor) > 0;
  }

  /**
   * A sender said Hello, and the catalog agrees with it. `backlog` is how many rows the store has above the watermark.
   * Returns what to welcome it with, or undefined when a connection of a newer epoch is there.
   */
  onHello(connection: unknown, epoch: number, backlog: number): Omit<WelcomeNews, "maxMessageBytes"> | undefined {
    const older = this.link;
    if (older !== undefined && older.epoch > epoch) return undefined;
    if (older !== undefined) {
      this.link = undefined;
      this.effects.closeConnection(older.connection);
    }
    this.dropHeld();
    this.backlog = backlog;
    this.link = {
      connection,
      epoch,
      liveAfter: undefined,
      live: false,
      toldBusy: false,
      toldBacklog: backlog,
      paused: false,
    };
    this.limitReading(this.link);
    if (epoch > this.watermark.epoch) this.epochAfter = this.queriesBegun;
    if (backlog > 0 || this.epochAfter !== undefined) this.want();
    return { cursor: this.welcomeCursor(), backlog, credit: this.limits.creditBytes };
  }

  /** The number to be told in Welcome: always the committed one. */
  protected welcomeCursor(): Position {
    return this.cursor;
  }

  /** Messages from the connection, in the order of the wire; numbered ones are contiguous. */
  onMessages(connection: unknown, messages: readonly IncomingMessage[], now: number): void {
    const link = this.link;
    if (link === undefined || link.connection !== connection) return;
    for (const message of messages) {
      this.wireBytes += message.payload.length;
      if (message.position === undefined) this.takeUnnumbered(message, link);
      else this.takeNumbered(message, message.position);
    }
    this.limitReading(link);
    this.tellBusy(now);
    if (this.queue.length > 0) this.signalReady();
  }

  onGoLive(connection: unknown): void {
    const link = this.link;
    if (link === undefined || link.connection !== connection || link.liveAfter !== undefined) return;
    link.liveAfter = this.queriesBegun;
    this.want();
  }

  /** The connection ended. What was accepted stays: numbers make the stored copies harmless. */
  onClosed(connection: unknown): void {
    if (this.link === undefined || this.link.connection !== connection) return;
    this.link = undefined;
    this.dropHeld();
  }

  /** The store may have rows: an announcement, a new session of notifications, or the first look at start. */
  onAnnounced(): void {
    this.want();
  }

  /** The slow poll found rows of this channel; leftovers at or below the cursor are removed. */
  onPolled(): void {
    this.checkStale = true;
    this.want();
  }

  /** What a query found: rows above the position it was asked for, in order, and how many are left behind them. */
  onRows(rows: readonly StoredRow[], remaining: number): void {
    const query = this.queriesBegun;
    this.querying = false;
    for (const row of rows) this.takeRow(row);
    this.backlog = remaining;
    if (remaining > 0) this.wanted = true;
    else this.conclude(query, rows.length === 0);
    this.release();
    this.tellBacklog();
    if (this.queue.length > 0) this.signalReady();
    this.askIfRoom();
  }

  onQueryFailed(): void {
    this.querying = false;
    this.wanted = true;
  }

  /** Asks the store again after a failure. */
  retryQuery(): void {
    this.askIfRoom();
  }

  /** The next message for the handler, which must be answered by {@link finish}; undefined while there is none. */
  take(now: number): IncomingMessage | undefined {
    if (this.halted) return undefined;
    if (this.running !== undefined) {
      if (this.retryAt === undefined || now < this.retryAt) return undefined;
      this.retryAt = undefined;
      this.retrySignalled = false;
      this.runningSince = now;
      this.attempts += 1;
      return this.running;
    }
    const message = this.queue.shift();
    if (message === undefined) return undefined;
    this.queueBytes -= message.payload.length;
    this.running = message;
    this.runningSince = now;
    this.attempts = 1;
    return message;
  }

  /** The attempt that {@link take} began, from 1. */
  get attempt(): number {
    return this.attempts;
  }

  /** The handler of the message last taken has ended. */
  finish(result: HandlerResult, now: number): void {
    const message = this.running;
    if (message === undefined) return;
    if (result.kind === "postponed") {
      this.attempts -= 1;
      this.retryAt = now + this.limits.retryDelayMs;
      this.retrySignalled = false;
      return;
    }
    if (message.position === undefined) {
      if (result.kind !== "done") this.effects.dropped(message, result.errorCode, result.errorMessage);
      this.done(message);
      return;
    }
    if (result.kind === "failed" && this.attempts < this.limits.maxAttempts) {
      this.retryAt = now + this.limits.retryDelayMs * 2 ** (this.attempts - 1);
      this.retrySignalled = false;
      this.tellBusy(now);
      return;
    }
    this.handled = message.position;
    const dead =
      result.kind === "done"
        ? undefined
        : { message, errorCode: result.errorCode, errorMessage: result.errorMessage, attempts: this.attempts };
    this.done(message);
    this.commitHandled(dead);
  }

  protected commitHandled(dead: DeadMessage | undefined): void {
    this.effects.commit(this.handled, dead);
  }

  /** The cursor is surely committed. */
  onCommitted(cursor: Position): void {
    if (comparePositions(cursor, this.cursor) <= 0) return;
    this.cursor = cursor;
    this.ack();
  }

  /** Stops or resumes handing out messages: the lease is not surely held, or the peer stops. */
  halt(halted: boolean): void {
    this.halted = halted;
    if (halted) {
      this.tellBusy(Number.POSITIVE_INFINITY);
      return;
    }
    if (this.link?.toldBusy === true && this.running === undefined) {
      this.link.toldBusy = false;
      this.ack();
    }
    if (this.queue.length > 0 || this.retryAt !== undefined) this.signalReady();
  }

  /** The moment at which {@link tick} has something to do, in ms; Infinity when only an event can change anything. */
  deadline(): number {
    if (this.running === undefined || this.halted) return Number.POSITIVE_INFINITY;
    const retry = this.retrySignalled ? Number.POSITIVE_INFINITY : (this.retryAt ?? Number.POSITIVE_INFINITY);
    const speak = this.link !== undefined && !this.link.toldBusy && this.queue.length + this.held.length > 0;
    return speak ? Math.min(retry, this.runningSince + this.limits.busyAfterMs) : retry;
  }

  /** Time has passed. */
  tick(now: number): void {
    this.tellBusy(now);
    if (this.retryAt === undefined || now < this.retryAt) return;
    this.retrySignalled = true;
    this.signalReady();
  }

  /** Sends an Ack with what is known. */
  protected ack(): void {
    const link = this.link;
    if (link === undefined) return;
    link.toldBacklog = this.backlog;
    this.effects.writeAck(link.connection, {
      cursor: this.ackCursor(),
      credit: this.limits.creditBytes,
      backlog: this.backlog,
      busy: link.toldBusy,
      live: link.live,
    });
  }

  /** The number to be told in an Ack: always the committed one. */
  protected ackCursor(): Position {
    return this.cursor;
  }

  private done(message: IncomingMessage): void {
    this.running = undefined;
    this.attempts = 0;
    if (message.fromWire) this.wireBytes -= message.payload.length;
    const link = this.link;
    if (link !== undefined) {
      if (link.paused) this.limitReading(link);
      if (link.toldBusy) {
        link.toldBusy = false;
        // An at-most-once message moves no cursor, so no other Ack would take the word back.
        if (message.position === undefined) this.ack();
      }
    }
    if (this.wanted) this.askIfRoom();
  }

  private takeUnnumbered(message: IncomingMessage, link: Link): void {
    if (link.live && this.held.length > 0) this.held.push(message);
    else this.enqueue(message);
  }

  private takeNumbered(message: IncomingMessage, position: Position): void {
    if (comparePositions(position, this.watermark) <= 0) {
      this.wireBytes -= message.payload.length;
      return;
    }
    const next = position.epoch === this.watermark.epoch && position.number === this.watermark.number + 1;
    if (next && this.held.length === 0) {
      this.accept(message, position);
      return;
    }
    this.held.push(message);
    if (this.gapAfter === undefined && position.epoch === this.watermark.epoch) {
      this.gapAfter = this.queriesBegun;
      this.want();
    }
  }

  /** A row of a query whose snapshot held every row of older epochs that there is. */
  private takeRow(row: StoredRow): void {
    const { epoch, number } = row.position;
    if (comparePositions(row.position, this.watermark) <= 0) return;
    const before = epoch === this.watermark.epoch ? this.watermark.number : 0;
    if (number > before + 1) this.effects.gap(epoch, before + 1, number - 1);
    this.accept(row, row.position);
  }

  private accept(message: IncomingMessage, position: Position): void {
    this.watermark = position;
    this.enqueue(message);
  }

  private enqueue(message: IncomingMessage): void {
    this.queue.push(message);
    this.queueBytes += message.payload.length;
  }

  /** The store has nothing above the watermark, as query number `query` saw it. */
  private conclude(query: number, nothingFound: boolean): void {
    const link = this.link;
    if (this.epochAfter !== undefined && this.concluded("epoch", query, this.epochAfter)) {
      this.epochAfter = undefined;
      if (link !== undefined && link.epoch > this.watermark.epoch) this.watermark = { epoch: link.epoch, number: 0 };
    }
    const first = this.firstHeld();
    if (first !== undefined && this.gapAfter !== undefined && this.concluded("gap", query, this.gapAfter)) {
      if (first.epoch === this.watermark.epoch && first.number > this.watermark.number + 1) {
        this.effects.gap(first.epoch, this.watermark.number + 1, first.number - 1);
        this.watermark = { epoch: first.epoch, number: first.number - 1 };
      }
    }
    if (link?.liveAfter !== undefined && !link.live && this.concluded("live", query, link.liveAfter)) {
      link.live = true;
      this.ack();
    }
    if (this.checkStale && nothingFound && comparePositions(this.watermark, this.cursor) === 0) {
      this.checkStale = false;
      this.effects.deleteStale(this.cursor);
    }
  }

  /** Whether query number `query` began after the moment at which `begunBefore` queries had begun. */
  protected concluded(_question: "epoch" | "gap" | "live", query: number, begunBefore: number): boolean {
    return query > begunBefore;
  }

  private firstHeld(): Position | undefined {
    for (let index = 0; ; index++) {
      const message = this.held.at(index);
      if (message === undefined) return undefined;
      if (message.position !== undefined) return message.position;
    }
  }

  /** Moves what is held and now in order to the handler's queue, and notes the gap that is left. */
  private release(): void {
    for (let message = this.held.at(0); message; message = this.held.at(0)) {
      const position = message.position;
      if (position !== undefined && comparePositions(position, this.watermark) > 0) {
        const next = position.epoch === this.watermark.epoch && position.number === this.watermark.number + 1;
        if (!next) break;
        this.held.shift();
        this.accept(message, position);
      } else {
        this.held.shift();
        if (position === undefined) this.enqueue(message);
        else this.wireBytes -= message.payload.length;
      }
    }
    const first = this.firstHeld();
    if (first === undefined) this.gapAfter = undefined;
    else if (first.epoch === this.watermark.epoch) {
      this.gapAfter = this.queriesBegun;
      this.wanted = true;
    }
  }

  private dropHeld(): void {
    for (let message = this.held.shift(); message; message = this.held.shift()) {
      // At-most-once messages were in order behind what is held; now nothing comes before them any more.
      if (message.position === undefined) this.enqueue(message);
      else this.wireBytes -= message.payload.length;
    }
    this.gapAfter = undefined;
    if (this.queue.length > 0) this.signalReady();
  }

  private want(): void {
    this.wanted = true;
    this.askIfRoom();
  }

  private askIfRoom(): void {
    if (!this.wanted || this.querying) return;
    if (this.queue.length > this.limits.refillBelow || this.queueBytes > this.limits.refillBelowBytes) return;
    this.wanted = false;
    this.querying = true;
    this.queriesBegun += 1;
    this.effects.query(this.watermark);
  }

  /** A sender that stores because of a long backlog hears when it has become short. */
  private tellBacklog(): void {
    const link = this.link;
    if (link === undefined || link.liveAfter !== undefined) return;
    if (link.toldBacklog > this.limits.shortBacklogRows && this.backlog <= this.limits.shortBacklogRows) this.ack();
  }

  private tellBusy(now: number): void {
    const link = this.link;
    if (link === undefined || link.toldBusy || this.queue.length + this.held.length === 0) return;
    if (this.running === undefined && !this.halted) return;
    if (!this.halted && now < this.runningSince + this.limits.busyAfterMs) return;
    link.toldBusy = true;
    this.ack();
  }

  /** At-most-once messages have no credit: beyond twice the credit the socket is not read. */
  private limitReading(link: Link): void {
    const limit = this.limits.creditBytes * 2;
    const paused = link.paused ? this.wireBytes > limit / 2 : this.wireBytes > limit;
    if (paused === link.paused) return;
    link.paused = paused;
    this.effects.pauseReading(link.connection, paused);
  }

  private signalReady(): void {
    if (!this.halted && (this.running === undefined || this.retryAt !== undefined)) this.effects.ready();
  }
}
