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
 * the second copy harmless. A send may end before that, because it has waited too long: then its message is kept, so that
 * no number is missing.
 */
import { type Ack, Delivery } from "../../generated/ts/codecs/hawser/peer/v1/frames.js";
import type { ChannelWelcome, LinkState, SenderEffects, SenderLimits, SendOutcome } from "./effects.js";
import { Flights } from "./flights.js";
import type { OutgoingMessage, Position } from "./messages.js";
import { isTooLong, OfferQueue } from "./offer-queue.js";

export class SenderChannel<Message extends OutgoingMessage> {
  readonly #limits: SenderLimits;
  readonly #effects: SenderEffects<Message>;
  /** Numbered messages that are not confirmed. */
  readonly #numbered: OfferQueue<Message>;
  /** At-most-once messages that wait for the connection, with the number of {@link #numbered} that they come after. */
  readonly #unnumbered = new OfferQueue<Message>(0);
  /** Numbered messages up to this one have their outcome already, though they may still be queued. */
  #settledThrough = 0;
  /** Messages that were written to the connection and are not acknowledged. */
  readonly #flights = new Flights();
  /** Payload bytes that may be in flight. */
  #credit = 0;
  /** The greatest payload that the listener takes over the connection. */
  #maxMessageBytes = Number.POSITIVE_INFINITY;
  readonly #inserts: Inserts;
  /** The sender's epoch, under which messages are numbered. */
  epoch: number;
  link: LinkState = "connecting";
  /** Identity of the present connection; events that name another one do nothing. */
  #connection: unknown;
  #dialling = false;
  #writable = true;
  /** The listener has said that it is busy. */
  isBusy = false;
  /** False while the lease is not surely held: nothing is written to the store. */
  #mayStore = true;
  #stopping = false;
  #endedAs: "fenced" | "abandoned" = "abandoned";

  /** The last number that the listener has handled, and committed, as heard. */
  ackedNumber = 0;
  /** The greatest number that is surely committed in Postgres by an insert of this channel. */
  storedNumber: number;
  #written = 0;
  /**
   * The moment at which {@link tick} has something to do, in ms, as of the last event; Infinity when only an event can change
   * anything.
   */
  deadline = Number.POSITIVE_INFINITY;

  /**
   * @param epoch the sender's
   * @param lastNumber where the channel was used before under this epoch: its last number. All up to there must be confirmed
   */
  constructor(epoch: number, limits: SenderLimits, effects: SenderEffects<Message>, lastNumber = 0) {
    this.epoch = epoch;
    this.#limits = limits;
    this.#effects = effects;
    this.#numbered = new OfferQueue(lastNumber);
    this.#inserts = new Inserts(limits);
    this.storedNumber = lastNumber;
  }

  /** Messages that the listener has not handled: stored ones of this epoch count, written at-most-once messages do not. */
  get unhandled(): number {
    return this.lastNumber - this.ackedNumber + this.#unnumbered.length;
  }

  /** The number of the newest numbered message. */
  get lastNumber(): number {
    return this.#numbered.last;
  }

  /** Messages that wait for a confirmation or for the connection. */
  get pendingMessages(): number {
    return this.#numbered.length + this.#unnumbered.length;
  }

  /** Their payload bytes. */
  get pendingBytes(): number {
    return this.#numbered.bytes + this.#unnumbered.bytes;
  }

  /** All of them. */
  *unconfirmed(): Iterable<Message> {
    yield* this.#numbered;
    yield* this.#unnumbered;
  }

  /**
   * Takes a message; call {@link flush} before the tick ends. False when the queue is full (one message always fits).
   *
   * @param now in ms. Where it is the same for many messages in a row, they take less memory
   */
  offer(message: Message, now: number): boolean {
    const waiting = this.pendingMessages;
    if (waiting > 0) {
      const { maxSendQueueMessages, maxSendQueueBytes } = this.#limits;
      if (waiting >= maxSendQueueMessages || this.pendingBytes + message.payload.length > maxSendQueueBytes) {
        return false;
      }
    }
    if (message.delivery === Delivery.AT_MOST_ONCE) this.#unnumbered.push(message, now, this.#numbered.last);
    else this.#numbered.push(message, now);
    return true;
  }

  /**
   * Whether an at-most-once message of so many bytes, uncompressed, need not be offered: it would be the next to be written, and
   * the connection takes it. The caller writes it before it calls anything else here, and has sent it.
   */
  writesAtOnce(bytes: number): boolean {
    if (this.#connection === undefined || !this.#writable || bytes > this.#maxMessageBytes) return false;
    if (this.#unnumbered.oldest !== undefined) return false;
    return this.link !== "live" || Math.max(this.#written, this.ackedNumber, this.storedNumber) >= this.#numbered.last;
  }

  /** Writes and stores what can be written and stored now. */
  flush(now: number): void {
    if (this.link === "ended") {
      this.#settleAll();
      return;
    }
    this.#write();
    const dropDue = this.#unnumbered.oldest === undefined ? Number.POSITIVE_INFINITY : this.#dropUnnumbered(now);
    this.deadline = Math.min(dropDue, this.#storeDue(now));
  }

  /** Time has passed. */
  tick(now: number): void {
    this.#timeOut(now);
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
    if (this.link === "ended") return;
    this.#connection = connection;
    this.#dialling = false;
    this.#writable = true;
    this.isBusy = false;
    this.#flights.clear();
    this.#credit = welcome.credit;
    this.#maxMessageBytes = welcome.maxMessageBytes;
    this.#acknowledge(welcome.cursorEpoch, welcome.cursor);
    this.#written = Math.max(this.ackedNumber, this.storedNumber);
    this.#setState("draining");
    this.#goLiveIfShort(welcome.backlog);
    this.flush(now);
  }

  onAck(connection: unknown, ack: Ack, now: number): void {
    if (connection !== this.#connection || this.link === "ended") return;
    this.#acknowledge(ack.epoch, ack.number);
    this.#credit = ack.credit;
    this.isBusy = ack.busy;
    if (this.link === "draining") this.#goLiveIfShort(ack.backlog);
    else if (this.link === "going-live" && ack.live) this.#setState("live");
    this.flush(now);
  }

  /** The listener goes in good order; its final cursor acknowledges. The connection ends soon. */
  onGoodbye(connection: unknown, cursor: Position, now: number): void {
    if (connection !== this.#connection || this.link === "ended") return;
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
    if (connection !== this.#connection || this.link === "ended") return;
    this.#goDown(now);
  }

  /** The insert under way is surely committed. */
  onStored(now: number): void {
    const number = this.#inserts.succeeded();
    if (number === 0) return;
    this.storedNumber = Math.max(this.storedNumber, number);
    this.#confirmThrough(this.storedNumber, "stored");
    if (this.#inserts.isToAnnounce(this.storedNumber, this.ackedNumber, now)) this.#effects.announce();
    this.flush(now);
  }

  /** The insert under way failed, or its end is unknown: it is tried again, from the first unconfirmed message on. */
  onStoreFailed(now: number): void {
    if (this.#inserts.underWay === 0) return;
    this.#inserts.failed(now);
    this.tick(now);
  }

  /** Another process has the name: nothing can be confirmed any more. */
  onFenced(): void {
    this.end("fenced");
  }

  /** The channel is used no more. What is unconfirmed is settled with the outcome, and so is what is offered later. */
  end(outcome: "fenced" | "abandoned"): void {
    if (this.link !== "ended") this.#endedAs = outcome;
    this.#connection = undefined;
    this.#inserts.underWay = 0;
    this.deadline = Number.POSITIVE_INFINITY;
    this.#setState("ended");
    this.#settleAll();
  }

  /** Whether the lease is surely held, and so whether the store may be written. */
  setMayStore(mayStore: boolean, now: number): void {
    this.#mayStore = mayStore;
    this.flush(now);
  }

  /**
   * The sender took its name anew, because another server answers that may have lost the last commits: what is
   * unconfirmed is numbered again under the new epoch. Whatever was under way under the old one confirms nothing; the
   * caller closes the connection and drops the answer of an insert under way.
   */
  rebase(epoch: number, now: number): void {
    if (this.link === "ended") return;
    this.epoch = epoch;
    this.#connection = undefined;
    this.ackedNumber = 0;
    this.storedNumber = 0;
    this.#written = 0;
    this.#inserts.reset();
    // Numbers begin anew with 1.
    this.#settledThrough = Math.max(0, this.#settledThrough - this.#numbered.first + 1);
    this.#numbered.renumber(1);
    this.#unnumbered.renumber(1);
    this.#goDown(now);
  }

  /** From now on everything unconfirmed is stored at once. */
  stop(now: number): void {
    this.#stopping = true;
    this.flush(now);
  }

  #setState(state: LinkState): void {
    if (state === this.link) return;
    this.link = state;
    this.#effects.linkChanged(state);
  }

  #goDown(now: number): void {
    if (this.link === "ended") return;
    this.#connection = undefined;
    this.isBusy = false;
    this.#setState("down");
    this.flush(now);
  }

  #goLiveIfShort(backlog: number): void {
    if (this.#stopping || backlog > this.#limits.shortBacklogRows) return;
    this.#effects.writeGoLive();
    this.#setState("going-live");
  }

  #acknowledge(epoch: number, number: number): void {
    if (epoch !== this.epoch || number <= this.ackedNumber) return;
    this.ackedNumber = Math.min(number, this.#numbered.last);
    this.#flights.landed(this.ackedNumber);
    this.#confirmThrough(this.ackedNumber, "delivered");
  }

  /** Whether every unconfirmed message is to be stored now, not only those that have waited too long. */
  #storesEverything(): boolean {
    if (this.#stopping || this.link === "down") return true;
    // The next message to write can only be stored if the listener's limit is lower than when it was offered. Nothing newer is
    // written before the store has it, where the listener finds it.
    const next = this.#numbered.at(Math.max(this.#written + 1, this.#numbered.first));
    if (this.#connection !== undefined && next !== undefined && isTooLong(next, this.#maxMessageBytes)) return true;
    if (this.link === "draining") return !this.#isAheadOfDrain(this.#limits.shortBacklogRows);
    return this.isBusy && !this.#isAheadOfDrain(this.#limits.insertRows);
  }

  /**
   * The listener has many stored messages to take: more are stored at its pace, as acknowledgements come, or when the ack
   * timeout asks for it. So the backlog of a sender that never pauses becomes short, too, and its channel goes live.
   */
  #isAheadOfDrain(rows: number): boolean {
    return this.storedNumber - this.ackedNumber >= rows;
  }

  /**
   * Starts the next insert if one is due: always the oldest unconfirmed messages, one insert at a time.
   *
   * @returns when the next one may be, or a send has waited too long
   */
  #storeDue(now: number): number {
    const queue = this.#numbered;
    if (queue.oldest === undefined) return Number.POSITIVE_INFINITY;
    const { at: oldest } = queue.oldest;
    const { ackTimeoutMs, sendTimeoutMs, insertRows, insertBytes } = this.#limits;
    const unsettled = this.#settledThrough < queue.first ? oldest : queue.offeredAt(this.#settledThrough + 1);
    const timeout = unsettled === undefined ? Number.POSITIVE_INFINITY : unsettled + sendTimeoutMs;
    if (this.#inserts.underWay !== 0 || !this.#mayStore) return timeout;
    const stores = this.#storesEverything();
    const due = Math.max(stores ? Number.NEGATIVE_INFINITY : oldest + ackTimeoutMs, this.#inserts.notBefore);
    if (now < due) return Math.min(due, timeout);
    const through = stores ? queue.last : queue.waitingSince(ackTimeoutMs, now);
    const { first } = queue;
    const { messages } = queue.batch(first, through, { maxMessages: insertRows, maxBytes: insertBytes });
    this.#inserts.underWay = first + messages.length - 1;
    this.#effects.store(first, messages);
    return timeout;
  }

  /** Writes to the connection, in the order of the offers while the channel is live, as far as credit goes. */
  #write(): void {
    if (this.#connection === undefined) return;
    const isLive = this.link === "live";
    const takesNumbered = isLive || this.link === "going-live";
    while (this.#writable) {
      // What the store has is not written; the listener finds it there.
      const written = Math.max(this.#written, this.ackedNumber, this.storedNumber);
      this.#written = written;
      const after = this.#unnumbered.oldest?.after ?? Number.POSITIVE_INFINITY;
      if (after !== Number.POSITIVE_INFINITY && (!isLive || after <= written)) this.#writeUnnumbered(isLive);
      else if (!takesNumbered || written >= this.#numbered.last || !this.#writeNumbered(after)) return;
    }
  }

  #writeUnnumbered(isLive: boolean): void {
    const queue = this.#unnumbered;
    const { first } = queue;
    const { batchMaxMessages: maxMessages, batchTargetBytes: maxBytes } = this.#limits;
    const window = { maxMessageBytes: this.#maxMessageBytes, credit: Number.POSITIVE_INFINITY, isEmpty: true };
    const through = isLive ? queue.lastAfter(this.#written) : queue.last;
    const { messages } = queue.batch(first, through, { maxMessages, maxBytes }, window);
    if (messages.length === 0) {
      // The listener does not take the very first.
      this.#settleUnnumbered(first, "dropped");
      return;
    }
    this.#effects.writeBatch(Delivery.AT_MOST_ONCE, (messages[0] as Message).topicKey, 0, messages);
    this.#settleUnnumbered(first + messages.length - 1, "sent");
  }

  /** Writes one batch of numbered messages up to `limit`; false when there is none or the credit is used up. */
  #writeNumbered(limit: number): boolean {
    const { batchMaxMessages: maxMessages, batchTargetBytes: maxBytes } = this.#limits;
    const from = this.#written + 1;
    const { bytes: inFlight } = this.#flights;
    const window = { maxMessageBytes: this.#maxMessageBytes, credit: this.#credit - inFlight, isEmpty: inFlight === 0 };
    const { messages, bytes } = this.#numbered.batch(from, limit, { maxMessages, maxBytes }, window);
    if (messages.length === 0) return false;
    this.#written += messages.length;
    this.#flights.push(this.#written, bytes);
    this.#effects.writeBatch(Delivery.AT_LEAST_ONCE, (messages[0] as Message).topicKey, from, messages);
    return true;
  }

  /**
   * Without a connection, at-most-once messages wait for one that is being made, and only so long; with one, until the
   * send timeout for what is in front of them.
   *
   * @returns when the first of those that stay has waited too long
   */
  #dropUnnumbered(now: number): number {
    const queue = this.#unnumbered;
    const isConnected = this.#connection !== undefined;
    const waits = isConnected || ((this.#dialling || this.link === "connecting") && !this.#stopping);
    const waitMs = isConnected ? this.#limits.sendTimeoutMs : this.#limits.connectWaitMs;
    this.#settleUnnumbered(waits ? queue.waitingSince(waitMs, now) : queue.last, "dropped");
    return queue.oldest === undefined ? Number.POSITIVE_INFINITY : queue.oldest.at + waitMs;
  }

  /** Numbered messages up to this one end so, and go. */
  #confirmThrough(number: number, outcome: SendOutcome): void {
    const queue = this.#numbered;
    const last = Math.min(number, queue.last);
    for (let next = Math.max(queue.first, this.#settledThrough + 1); next <= last; next++) {
      this.#effects.settle(queue.at(next) as Message, outcome);
    }
    if (last >= queue.first) queue.drop(last);
  }

  /** At-most-once messages up to this one in their queue end so, and go. */
  #settleUnnumbered(last: number, outcome: "sent" | "dropped"): void {
    const queue = this.#unnumbered;
    for (let number = queue.first; number <= last; number++) {
      this.#effects.settle(queue.at(number) as Message, outcome);
    }
    if (last >= queue.first) queue.drop(last);
  }

  #settleAll(): void {
    this.#confirmThrough(this.#numbered.last, this.#endedAs);
    this.#settleUnnumbered(this.#unnumbered.last, "dropped");
  }

  /** Sends that have waited for a confirmation too long end, and their messages stay. */
  #timeOut(now: number): void {
    const queue = this.#numbered;
    const through = queue.waitingSince(this.#limits.sendTimeoutMs, now);
    for (let number = Math.max(this.#settledThrough + 1, queue.first); number <= through; number++) {
      this.#settledThrough = number;
      this.#effects.settle(queue.at(number) as Message, "timed-out");
    }
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
