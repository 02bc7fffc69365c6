/**
 * The sending half of a channel, as a pure state machine: events come in with their time, effects go out. It knows no
 * socket, no database and no clock.
 *
 * At-least-once messages have contiguous numbers within the sender's epoch and are in one queue until they are
 * confirmed. Three watermarks move over it, all of them numbers of this epoch:
 *
 *     acked    the listener's committed cursor, as heard
 *     stored   surely committed in Postgres: always a prefix, since one insert at a time begins behind it
 *     written  handed to the present connection, or skipped there because the store has it
 *
 * A message is confirmed by the first of acked and stored that passes it. It may travel both ways; its number makes
 * the second copy harmless.
 */
import { type Ack, Delivery } from "../../generated/ts/codecs/hawser/peer/v1/frames.js";
import type { ChannelWelcome, LinkState, SenderEffects, SenderLimits } from "./effects.js";
import { FlightWindow, insertBatch, numberedBatch, unnumberedBatch } from "./flight-window.js";
import type { OutgoingMessage, Position } from "./messages.js";
import { UnconfirmedMessages } from "./unconfirmed-messages.js";

export class SenderChannel<Message extends OutgoingMessage> {
  readonly #limits: SenderLimits;
  readonly #effects: SenderEffects<Message>;
  readonly #unconfirmed: UnconfirmedMessages<Message>;
  readonly #window = new FlightWindow();
  readonly #inserts: Inserts;
  #epoch: number;
  #state: LinkState = "connecting";
  /** Identity of the present connection; events that name another one do nothing. */
  #connection: unknown;
  #dialling = false;
  #writable = true;
  #busy = false;
  /** False while the lease is not surely held: nothing is written to the store. */
  #mayStore = true;
  #stopping = false;
  #endedAs: "fenced" | "abandoned" = "abandoned";

  #acked = 0;
  #stored: number;
  #written = 0;

  /**
   * @param epoch the sender's
   * @param lastNumber where the channel was used before under this epoch: its last number. All up to there must be confirmed
   */
  constructor(epoch: number, limits: SenderLimits, effects: SenderEffects<Message>, lastNumber = 0) {
    this.#epoch = epoch;
    this.#limits = limits;
    this.#effects = effects;
    this.#unconfirmed = new UnconfirmedMessages(limits, effects, lastNumber);
    this.#inserts = new Inserts(limits);
    this.#stored = lastNumber;
  }

  /** The sender's epoch, under which messages are numbered. */
  get epoch(): number {
    return this.#epoch;
  }

  get link(): LinkState {
    return this.#state;
  }

  /** The last number that the listener has handled, and committed, as heard. */
  get ackedNumber(): number {
    return this.#acked;
  }

  /** Messages that the listener has not handled: stored ones of this epoch count, written at-most-once messages do not. */
  get unhandled(): number {
    return this.lastNumber - this.#acked + this.#unconfirmed.unnumbered.length;
  }

  /** The listener has said that it is busy. */
  get isBusy(): boolean {
    return this.#busy;
  }

  /** The greatest number that is surely committed in Postgres by an insert of this channel. */
  get storedNumber(): number {
    return this.#stored;
  }

  /** The number of the newest numbered message. */
  get lastNumber(): number {
    return this.#unconfirmed.numbered.last;
  }

  /** Messages that wait for a confirmation or for the connection. */
  get pendingMessages(): number {
    return this.#unconfirmed.count;
  }

  /** Their payload bytes. */
  get pendingBytes(): number {
    return this.#unconfirmed.bytes;
  }

  /** All of them. */
  get unconfirmed(): Iterable<Message> {
    return this.#unconfirmed;
  }

  /**
   * Takes a message; call {@link flush} before the tick ends. False when the queue is full (one message always fits).
   *
   * @param now in ms. Where it is the same for many messages in a row, they take less memory
   */
  offer(message: Message, now: number): boolean {
    return this.#unconfirmed.offer(message, now);
  }

  /** Writes and stores what can be written and stored now. */
  flush(now: number): void {
    if (this.#state === "ended") {
      this.#unconfirmed.settleAll(this.#endedAs);
      return;
    }
    this.#write();
    if (this.#unconfirmed.unnumbered.length > 0) this.#dropUnnumbered(now);
    if (this.#unconfirmed.numbered.length > 0) this.#storeDue(now);
  }

  /** The moment at which {@link tick} has something to do, in ms; Infinity when only an event can change anything. */
  deadline(): number {
    let at = Number.POSITIVE_INFINITY;
    if (this.#state === "ended") return at;
    const { numbered: queue, unnumbered } = this.#unconfirmed;
    const oldest = queue.offeredAt(queue.first);
    if (oldest !== undefined) {
      if (this.#inserts.underWay === 0 && this.#mayStore) {
        const due = this.#storesEverything() ? Number.NEGATIVE_INFINITY : oldest + this.#limits.ackTimeoutMs;
        at = Math.max(due, this.#inserts.notBefore);
      }
      const unsettled = queue.offeredAt(this.#unconfirmed.settledThrough + 1);
      if (unsettled !== undefined) at = Math.min(at, unsettled + this.#limits.sendTimeoutMs);
    }
    const waiting = unnumbered.offeredAt(unnumbered.first);
    if (waiting !== undefined) at = Math.min(at, waiting + this.#unnumberedWaitMs());
    return at;
  }

  /** Time has passed. */
  tick(now: number): void {
    this.#unconfirmed.timeOut(now);
    this.flush(now);
  }

  /** A dial begins: at-most-once messages wait for it, and numbered ones too if it is the first. */
  onDialling(): void {
    this.#dialling = true;
  }

  /** The dial failed. */
  onDialFailed(now: number): void {
    this.#dialling = false;
    if (this.#connection === undefined) this.#goDown(now);
  }

  /** The listener welcomed a new connection, which replaces an older one. */
  onConnected(connection: unknown, welcome: ChannelWelcome, now: number): void {
    if (this.#state === "ended") return;
    this.#connection = connection;
    this.#dialling = false;
    this.#writable = true;
    this.#busy = false;
    this.#window.open(welcome.credit, welcome.maxMessageBytes);
    this.#acknowledge(welcome.cursorEpoch, welcome.cursor);
    this.#written = this.#confirmed();
    this.#setState("draining");
    this.#goLiveIfShort(welcome.backlog);
    this.flush(now);
  }

  onAck(connection: unknown, ack: Ack, now: number): void {
    if (connection !== this.#connection || this.#state === "ended") return;
    this.#acknowledge(ack.epoch, ack.number);
    this.#window.credit = ack.credit;
    this.#busy = ack.busy;
    if (this.#state === "draining") this.#goLiveIfShort(ack.backlog);
    else if (this.#state === "going-live" && ack.live) this.#setState("live");
    this.flush(now);
  }

  /** The listener goes in good order; its final cursor acknowledges. The connection ends soon. */
  onGoodbye(connection: unknown, cursor: Position, now: number): void {
    if (connection !== this.#connection || this.#state === "ended") return;
    this.#acknowledge(cursor.epoch, cursor.number);
    this.#goDown(now);
  }

  /** The connection takes more again after {@link pauseWriting}. */
  onWritable(connection: unknown, now: number): void {
    if (connection !== this.#connection) return;
    this.#writable = true;
    this.flush(now);
  }

  /** The connection's buffer is full: nothing is written until {@link onWritable}. */
  pauseWriting(): void {
    this.#writable = false;
  }

  /** The connection ended: what is unconfirmed is stored, in order, before anything newer. */
  onClosed(connection: unknown, now: number): void {
    if (connection !== this.#connection || this.#state === "ended") return;
    this.#goDown(now);
  }

  /** The insert under way is surely committed. */
  onStored(now: number): void {
    const number = this.#inserts.succeeded();
    if (number === 0) return;
    this.#stored = Math.max(this.#stored, number);
    this.#unconfirmed.confirmThrough(this.#stored, "stored");
    if (this.#inserts.isToAnnounce(this.#stored, this.#acked, now)) this.#effects.announce();
    this.flush(now);
  }

  /** The insert under way failed, or its end is unknown: it is tried again, from the first unconfirmed message on. */
  onStoreFailed(now: number): void {
    if (this.#inserts.underWay === 0) return;
    this.#inserts.failed(now);
    this.#unconfirmed.timeOut(now);
  }

  /** Another process has the name: nothing can be confirmed any more. */
  onFenced(): void {
    this.end("fenced");
  }

  /** The channel is used no more. What is unconfirmed is settled with the outcome, and so is what is offered later. */
  end(outcome: "fenced" | "abandoned"): void {
    if (this.#state !== "ended") this.#endedAs = outcome;
    this.#connection = undefined;
    this.#inserts.underWay = 0;
    this.#setState("ended");
    this.#unconfirmed.settleAll(this.#endedAs);
  }

  /** Whether the lease is surely held, and so whether the store may be written. */
  setMayStore(mayStore: boolean, now: number): void {
    this.#mayStore = mayStore;
    if (mayStore) this.flush(now);
  }

  /**
   * The sender took its name anew, because another server answers that may have lost the last commits: what is
   * unconfirmed is numbered again under the new epoch. Whatever was under way under the old one confirms nothing; the
   * caller closes the connection and drops the answer of an insert under way.
   */
  rebase(epoch: number, now: number): void {
    if (this.#state === "ended") return;
    this.#epoch = epoch;
    this.#connection = undefined;
    this.#acked = 0;
    this.#stored = 0;
    this.#written = 0;
    this.#inserts.reset();
    this.#unconfirmed.renumber();
    this.#goDown(now);
  }

  /** From now on everything unconfirmed is stored at once. */
  stop(now: number): void {
    this.#stopping = true;
    this.flush(now);
  }

  #setState(state: LinkState): void {
    if (state === this.#state) return;
    this.#state = state;
    this.#effects.linkChanged(state);
  }

  #goDown(now: number): void {
    if (this.#state === "ended") return;
    this.#connection = undefined;
    this.#busy = false;
    this.#setState("down");
    this.flush(now);
  }

  #goLiveIfShort(backlog: number): void {
    if (this.#stopping || backlog > this.#limits.shortBacklogRows) return;
    this.#effects.writeGoLive();
    this.#setState("going-live");
  }

  #acknowledge(epoch: number, number: number): void {
    if (epoch !== this.#epoch || number <= this.#acked) return;
    this.#acked = Math.min(number, this.#unconfirmed.numbered.last);
    this.#window.flights.landed(this.#acked);
    this.#unconfirmed.confirmThrough(this.#acked, "delivered");
  }

  /** Whether every unconfirmed message is to be stored now, not only those that have waited too long. */
  #storesEverything(): boolean {
    if (this.#stopping || this.#state === "down" || this.#isStuckBehindLong()) return true;
    if (this.#state === "draining") return !this.#isAheadOfDrain(this.#limits.shortBacklogRows);
    return this.#busy && !this.#isAheadOfDrain(this.#limits.insertRows);
  }

  /**
   * The listener has many stored messages to take: more are stored at its pace, as acknowledgements come, or when the ack
   * timeout asks for it. So the backlog of a sender that never pauses becomes short, too, and its channel goes live.
   */
  #isAheadOfDrain(rows: number): boolean {
    return this.#stored - this.#acked >= rows;
  }

  /** Starts the next insert if one is due: always the oldest unconfirmed messages, one insert at a time. */
  #storeDue(now: number): void {
    if (this.#inserts.underWay !== 0 || !this.#mayStore || now < this.#inserts.notBefore) return;
    const queue = this.#unconfirmed.numbered;
    const through = this.#storesEverything() ? queue.last : queue.waitingSince(this.#limits.ackTimeoutMs, now);
    const { from, count } = insertBatch(queue, through, this.#limits);
    if (count === 0) return;
    this.#inserts.underWay = from + count - 1;
    this.#effects.store(from, queue.slice(from, count));
  }

  /** Everything up to here is acknowledged or stored. */
  #confirmed(): number {
    return Math.max(this.#acked, this.#stored);
  }

  /** Writes to the connection, in the order of the offers while the channel is live, as far as credit goes. */
  #write(): void {
    if (this.#connection === undefined) return;
    const numbered = this.#state === "live" || this.#state === "going-live";
    const { unnumbered } = this.#unconfirmed;
    while (this.#writable) {
      // What the store has is not written; the listener finds it there.
      this.#written = Math.max(this.#written, this.#confirmed());
      const after = unnumbered.firstAfter;
      if (unnumbered.length > 0 && (this.#state !== "live" || after <= this.#written)) this.#writeUnnumbered();
      else if (!numbered || !this.#writeNumbered(after)) return;
    }
  }

  #writeUnnumbered(): void {
    const { unnumbered } = this.#unconfirmed;
    const written = this.#state === "live" ? this.#written : Number.POSITIVE_INFINITY;
    const { from, count } = unnumberedBatch(unnumbered, written, this.#window, this.#limits);
    const messages = unnumbered.slice(from, count);
    const [first] = messages;
    if (first === undefined) {
      this.#unconfirmed.settleUnnumbered(from, "dropped");
      return;
    }
    this.#effects.writeBatch(Delivery.AT_MOST_ONCE, first.topicKey, 0, messages);
    this.#unconfirmed.settleUnnumbered(from + count - 1, "sent");
  }

  /** Writes one batch of numbered messages up to `limit`; false when there is none or the credit is used up. */
  #writeNumbered(limit: number): boolean {
    const queue = this.#unconfirmed.numbered;
    const { from, count, bytes } = numberedBatch(queue, this.#written + 1, limit, this.#window, this.#limits);
    if (count === 0) return false;
    const messages = queue.slice(from, count);
    this.#written = from + count - 1;
    this.#window.flights.push(this.#written, bytes);
    this.#effects.writeBatch(Delivery.AT_LEAST_ONCE, (messages[0] as Message).topicKey, from, messages);
    return true;
  }

  /**
   * Whether the next message to write can only be stored: the listener's limit is lower than when it was offered. Nothing
   * newer is written before the store has it, where the listener finds it.
   */
  #isStuckBehindLong(): boolean {
    if (this.#connection === undefined) return false;
    const next = this.#unconfirmed.numbered.at(Math.max(this.#written + 1, this.#unconfirmed.numbered.first));
    return next !== undefined && this.#window.isTooLong(next);
  }

  /**
   * Without a connection, at-most-once messages wait for one that is being made, and only so long; with one, until the
   * send timeout for what is in front of them.
   */
  #dropUnnumbered(now: number): void {
    const { unnumbered } = this.#unconfirmed;
    const waits =
      this.#connection !== undefined || ((this.#dialling || this.#state === "connecting") && !this.#stopping);
    const last = waits ? unnumbered.waitingSince(this.#unnumberedWaitMs(), now) : unnumbered.last;
    this.#unconfirmed.settleUnnumbered(last, "dropped");
  }

  #unnumberedWaitMs(): number {
    return this.#connection === undefined ? this.#limits.connectWaitMs : this.#limits.sendTimeoutMs;
  }
}

/** The inserts of a channel, one at a time: which is under way, when the next may begin, and what was announced of them. */
class Inserts {
  /** Last number of the insert under way; 0 when there is none. */
  underWay = 0;
  /** No insert begins before, in ms: one has failed. */
  notBefore = Number.NEGATIVE_INFINITY;
  #retryDelayMs = 0;
  #announcedNumber = 0;
  #announcedAt = Number.NEGATIVE_INFINITY;

  readonly #limits: SenderLimits;

  constructor(limits: SenderLimits) {
    this.#limits = limits;
  }

  /** The insert under way is done. @returns its last number; 0 when there is none */
  succeeded(): number {
    const number = this.underWay;
    this.underWay = 0;
    this.#retryDelayMs = 0;
    return number;
  }

  /** The insert under way has failed, or its end is unknown. */
  failed(now: number): void {
    const { storeRetryMinMs, storeRetryMaxMs } = this.#limits;
    this.underWay = 0;
    this.#retryDelayMs = Math.min(storeRetryMaxMs, Math.max(storeRetryMinMs, this.#retryDelayMs * 2));
    this.notBefore = now + this.#retryDelayMs;
  }

  /** Numbers begin anew; the answer of an insert under way counts no more. */
  reset(): void {
    this.underWay = 0;
    this.#announcedNumber = 0;
    this.notBefore = Number.NEGATIVE_INFINITY;
  }

  /** One announcement until the listener has taken what was announced, or may have missed it. */
  isToAnnounce(stored: number, acked: number, now: number): boolean {
    if (acked < this.#announcedNumber && now < this.#announcedAt + this.#limits.ackTimeoutMs) return false;
    this.#announcedNumber = stored;
    this.#announcedAt = now;
    return true;
  }
}
