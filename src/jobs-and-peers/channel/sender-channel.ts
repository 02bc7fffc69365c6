/**
 * The sending half of a channel as a pure state machine: events come in with their time, effects go out. It uses no
 * socket, no database and no clock.
 *
 * At-least-once messages have contiguous numbers within the sender's epoch and stay in one queue until they are
 * confirmed. Three watermarks, all numbers of this epoch, move over the queue:
 *
 *     acked    the listener's committed cursor, as last acknowledged
 *     stored   committed in Postgres: always a prefix of the queue, because inserts run one at a time
 *     written  handed to the current connection, or skipped there because the store has the message
 *
 * A message is confirmed as soon as acked or stored reaches its number. A message can travel over both paths; the
 * number makes the second copy harmless. A send can time out before its message is confirmed. The message then stays in
 * the queue, so that the sequence of numbers has no gap.
 */
import { type Ack, Delivery } from "../../../generated/ts/codecs/hawser/peer/v1/frames.js";
import type { ChannelWelcome, LinkState, SenderEffects, SenderLimits, SendOutcome } from "./effects.js";
import { Flights } from "./flights.js";
import type { OutgoingMessage, Position } from "./messages.js";
import { isTooLong, OfferQueue } from "./offer-queue.js";

/** Number of messages, and the sum of their payload bytes. */
type QueueSize = Readonly<Pick<OfferQueue<OutgoingMessage>, "length" | "bytes">>;

const nothing: QueueSize = { length: 0, bytes: 0 };

export class SenderChannel<Message extends OutgoingMessage> {
  readonly #limits: SenderLimits;
  readonly #effects: SenderEffects<Message>;
  /** Numbered messages that are not confirmed yet. */
  readonly #numbered: OfferQueue<Message>;
  /**
   * At-most-once messages that wait for the connection. Each records the last number of {@link #numbered} before it.
   */
  readonly #unnumbered = new OfferQueue<Message>(0);
  /** Highest number whose send outcome has been reported. The message itself may still be queued. */
  #reportedThrough = 0;
  /** Messages written to the connection and not acknowledged. */
  readonly #flights = new Flights();
  /** Payload bytes that may be in flight. */
  #credit = 0;
  /** Largest payload that the listener accepts over the connection. */
  #maxMessageBytes = Number.POSITIVE_INFINITY;
  readonly #inserts: Inserts;
  /** Epoch of the sender, within which messages are numbered. */
  epoch: number;
  link: LinkState = "connecting";
  /** Identity of the current connection. Events that carry another identity are ignored. */
  #connection: unknown;
  #dialling = false;
  #writable = true;
  /** True if the last Ack reported the listener as busy. */
  isBusy = false;
  /** False while the lease may have expired. Nothing is written to the store then. */
  #mayStore = true;
  #stopping = false;
  #endedAs: "fenced" | "abandoned" = "abandoned";

  /** Last acknowledged number: the listener's committed cursor. */
  ackedNumber = 0;
  /** Highest number that an insert of this channel has committed in Postgres. */
  storedNumber: number;
  #written = 0;
  /**
   * Time of the next necessary {@link tick} in ms, as of the last event; Infinity if only an event can change the
   * state.
   */
  deadline = Number.POSITIVE_INFINITY;

  /**
   * @param epoch epoch of the sender
   * @param lastNumber last number that the channel has already used under this epoch; all messages up to it must be
   * confirmed
   */
  constructor(epoch: number, limits: SenderLimits, effects: SenderEffects<Message>, lastNumber = 0) {
    this.epoch = epoch;
    this.#limits = limits;
    this.#effects = effects;
    this.#numbered = new OfferQueue(lastNumber);
    this.#inserts = new Inserts(limits);
    this.storedNumber = lastNumber;
  }

  /**
   * Messages that the listener has not handled. Stored messages of this epoch count; written at-most-once messages do
   * not.
   */
  get unhandled(): number {
    return this.lastNumber - this.ackedNumber + this.#unnumbered.length;
  }

  /** Number of the newest numbered message. */
  get lastNumber(): number {
    return this.#numbered.last;
  }

  /** Messages that wait for a confirmation or for the connection. */
  get pendingMessages(): number {
    return this.#numbered.length + this.#unnumbered.length;
  }

  /** Payload bytes of the pending messages. */
  get pendingBytes(): number {
    return this.#numbered.bytes + this.#unnumbered.bytes;
  }

  /** All pending messages, the numbered ones first. */
  *unconfirmed(): Iterable<Message> {
    yield* this.#numbered;
    yield* this.#unnumbered;
  }

  /**
   * Returns true if a further message of `bytes` is within the limits of the queue. An empty queue accepts a message of
   * any size.
   *
   * @param before messages that will be offered first
   */
  hasRoom(bytes: number, before: QueueSize = nothing): boolean {
    const waiting = this.pendingMessages + before.length;
    if (waiting === 0) return true;
    const { maxSendQueueMessages, maxSendQueueBytes } = this.#limits;
    return waiting < maxSendQueueMessages && this.pendingBytes + before.bytes + bytes <= maxSendQueueBytes;
  }

  /**
   * Queues a message. Call {@link flush} in the same event-loop turn.
   *
   * @param now time in ms. Consecutive messages with the same value take less memory
   * @returns false if the queue has no room
   */
  offer(message: Message, now: number): boolean {
    if (!this.hasRoom(message.payload.length)) return false;
    if (message.delivery === Delivery.AT_MOST_ONCE) this.#unnumbered.push(message, now, this.#numbered.last);
    else this.#numbered.push(message, now);
    return true;
  }

  /**
   * Returns true if an at-most-once message of `bytes` uncompressed bytes can skip the queue: no message is before it,
   * and the connection accepts it. The caller then writes the message itself before its next call to this channel.
   */
  writesAtOnce(bytes: number): boolean {
    if (this.#connection === undefined || !this.#writable || bytes > this.#maxMessageBytes) return false;
    if (this.#unnumbered.oldest !== undefined) return false;
    return this.link !== "live" || Math.max(this.#written, this.ackedNumber, this.storedNumber) >= this.#numbered.last;
  }

  /** Writes and stores all messages that are due. */
  flush(now: number): void {
    if (this.link === "ended") {
      this.#finishAll();
      return;
    }
    this.#write();
    const dropDue = this.#unnumbered.oldest === undefined ? Number.POSITIVE_INFINITY : this.#dropUnnumbered(now);
    this.deadline = Math.min(dropDue, this.#storeDue(now));
  }

  tick(now: number): void {
    this.#timeOut(now);
    this.flush(now);
  }

  /**
   * A dial has started. At-most-once messages wait for its result; numbered messages do so too during the first dial.
   */
  onDialling(): void {
    this.#dialling = true;
  }

  onDialFailed(now: number): void {
    this.#dialling = false;
    if (this.#connection === undefined) this.#goDown(now);
  }

  /** The listener accepted a new connection, which replaces the previous one. */
  onConnected(connection: unknown, welcome: ChannelWelcome, now: number): void {
    if (this.link === "ended") return;
    this.#connection = connection;
    this.#dialling = false;
    this.#writable = true;
    this.isBusy = false;
    this.#flights.clear();
    this.#credit = welcome.credit;
    this.#maxMessageBytes = welcome.maxMessageBytes;
    this.#acknowledge(welcome.cursorEpoch, welcome.cursor, welcome.queued);
    this.#written = Math.max(this.ackedNumber, this.storedNumber);
    this.#setState("draining");
    this.#goLiveIfShort(welcome.backlog);
    this.flush(now);
  }

  onAck(connection: unknown, ack: Ack, now: number): void {
    if (connection !== this.#connection || this.link === "ended") return;
    this.#acknowledge(ack.epoch, ack.number, ack.queued);
    this.#credit = ack.credit;
    this.isBusy = ack.busy;
    if (this.link === "draining") this.#goLiveIfShort(ack.backlog);
    else if (this.link === "going-live" && ack.live) this.#setState("live");
    this.flush(now);
  }

  /** The listener shuts down gracefully. Its final cursor acknowledges messages; the connection closes soon. */
  onGoodbye(connection: unknown, cursor: Position, now: number): void {
    if (connection !== this.#connection || this.link === "ended") return;
    this.#acknowledge(cursor.epoch, cursor.number, 0);
    this.#goDown(now);
  }

  /** The connection accepts data again after {@link pauseWriting}. */
  onWritable(connection: unknown, now: number): void {
    if (connection !== this.#connection) return;
    this.#writable = true;
    this.flush(now);
  }

  /** The connection's buffer is full. Nothing is written until {@link onWritable}. */
  pauseWriting(): void {
    this.#writable = false;
  }

  /** The connection closed. Unconfirmed messages are stored in order, before any newer message. */
  onClosed(connection: unknown, now: number): void {
    if (connection !== this.#connection || this.link === "ended") return;
    this.#goDown(now);
  }

  /** The pending insert has committed. */
  onStored(now: number): void {
    const number = this.#inserts.succeeded();
    if (number === 0) return;
    this.storedNumber = Math.max(this.storedNumber, number);
    this.#confirmThrough(this.storedNumber, "stored");
    if (this.#inserts.shouldAnnounce(this.storedNumber, this.ackedNumber, now)) this.#effects.announce();
    this.flush(now);
  }

  /** The pending insert failed, or its outcome is unknown. It is retried from the first unconfirmed message. */
  onStoreFailed(now: number): void {
    if (this.#inserts.pending === 0) return;
    this.#inserts.failed(now);
    this.tick(now);
  }

  /** Another process owns the name. No message can be confirmed any more. */
  onFenced(): void {
    this.end("fenced");
  }

  /** Closes the channel for good. Unconfirmed messages, and messages offered later, end with `outcome`. */
  end(outcome: "fenced" | "abandoned"): void {
    if (this.link !== "ended") this.#endedAs = outcome;
    this.#connection = undefined;
    this.#inserts.pending = 0;
    this.deadline = Number.POSITIVE_INFINITY;
    this.#setState("ended");
    this.#finishAll();
  }

  /** Sets whether the lease is certainly held. Only then may the channel write to the store. */
  setMayStore(mayStore: boolean, now: number): void {
    this.#mayStore = mayStore;
    this.flush(now);
  }

  /**
   * Renumbers unconfirmed messages under a new epoch. Called after the sender has taken its name again on another
   * server, which may lack the last commits. Acknowledgements and inserts of the old epoch confirm nothing; the caller
   * closes the connection and ignores the answer of a pending insert.
   */
  restartNumbering(epoch: number, now: number): void {
    if (this.link === "ended") return;
    this.epoch = epoch;
    this.#connection = undefined;
    this.ackedNumber = 0;
    this.storedNumber = 0;
    this.#written = 0;
    this.#inserts.reset();
    // The numbers start again at 1.
    this.#reportedThrough = Math.max(0, this.#reportedThrough - this.#numbered.first + 1);
    this.#numbered.renumber(1);
    this.#unnumbered.renumber(1);
    this.#goDown(now);
  }

  /** Stops live delivery: all unconfirmed messages are stored at once from now on. */
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

  /** @param queued number up to which messages may wait in the queue of the database */
  #acknowledge(epoch: number, number: number, queued: number): void {
    if (epoch !== this.epoch || number <= this.ackedNumber) return;
    this.ackedNumber = Math.min(number, this.#numbered.last);
    this.#flights.acknowledge(this.ackedNumber);
    this.#confirmThrough(Math.min(queued, this.ackedNumber), "stored");
    this.#confirmThrough(this.ackedNumber, "delivered");
  }

  /** True if all unconfirmed messages must be stored now, not only those whose acknowledgement is overdue. */
  #storesEverything(): boolean {
    if (this.#stopping || this.link === "down") return true;
    // A listener that lowered its limit after the offer can take this message only from the store. Newer messages wait
    // until the store has it, so that the order is kept.
    const next = this.#numbered.at(Math.max(this.#written + 1, this.#numbered.first));
    if (this.#connection !== undefined && next !== undefined && isTooLong(next, this.#maxMessageBytes)) return true;
    if (this.link === "draining") return !this.#hasLongBacklog(this.#limits.shortBacklogRows);
    return this.isBusy && !this.#hasLongBacklog(this.#limits.insertRows);
  }

  /**
   * True if the listener has at least `rows` stored messages to read. The sender then stores more only as
   * acknowledgements arrive, or when the ack timeout is due. The backlog of a sender that never pauses can therefore
   * become short, and its channel can go live.
   */
  #hasLongBacklog(rows: number): boolean {
    return this.storedNumber - this.ackedNumber >= rows;
  }

  /**
   * Starts the next insert if one is due. Inserts run one at a time and take the oldest unconfirmed messages.
   *
   * @returns time at which the next insert or send timeout can be due
   */
  #storeDue(now: number): number {
    const queue = this.#numbered;
    if (queue.oldest === undefined) return Number.POSITIVE_INFINITY;
    const { at: oldest } = queue.oldest;
    const { ackTimeoutMs, sendTimeoutMs, insertRows, insertBytes } = this.#limits;
    const unreported = this.#reportedThrough < queue.first ? oldest : queue.offeredAt(this.#reportedThrough + 1);
    const timeout = unreported === undefined ? Number.POSITIVE_INFINITY : unreported + sendTimeoutMs;
    if (this.#inserts.pending !== 0 || !this.#mayStore) return timeout;
    const stores = this.#storesEverything();
    const due = Math.max(stores ? Number.NEGATIVE_INFINITY : oldest + ackTimeoutMs, this.#inserts.notBefore);
    if (now < due) return Math.min(due, timeout);
    const through = stores ? queue.last : queue.waitingSince(ackTimeoutMs, now);
    const { first } = queue;
    const { messages } = queue.batch(first, through, { maxMessages: insertRows, maxBytes: insertBytes });
    this.#inserts.pending = first + messages.length - 1;
    this.#effects.store(first, messages);
    return timeout;
  }

  /** Writes to the connection while credit lasts. A live channel keeps the order of the offers. */
  #write(): void {
    if (this.#connection === undefined) return;
    const isLive = this.link === "live";
    const takesNumbered = isLive || this.link === "going-live";
    while (this.#writable) {
      // The listener reads stored messages from the store, so they are not written.
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
      // The first message exceeds the listener's limit.
      this.#finishUnnumbered(first, "dropped");
      return;
    }
    this.#effects.writeBatch(Delivery.AT_MOST_ONCE, (messages[0] as Message).topicId, 0, messages);
    this.#finishUnnumbered(first + messages.length - 1, "sent");
  }

  /** Writes one batch of numbered messages up to `limit`. Returns false if there is none or the credit is used up. */
  #writeNumbered(limit: number): boolean {
    const { batchMaxMessages: maxMessages, batchTargetBytes: maxBytes } = this.#limits;
    const from = this.#written + 1;
    const { bytes: inFlight } = this.#flights;
    const window = { maxMessageBytes: this.#maxMessageBytes, credit: this.#credit - inFlight, isEmpty: inFlight === 0 };
    const { messages, bytes } = this.#numbered.batch(from, limit, { maxMessages, maxBytes }, window);
    if (messages.length === 0) return false;
    this.#written += messages.length;
    this.#flights.push(this.#written, bytes);
    this.#effects.writeBatch(Delivery.AT_LEAST_ONCE, (messages[0] as Message).topicId, from, messages);
    return true;
  }

  /**
   * Drops at-most-once messages that have waited too long. Without a connection they wait for the dial in progress, at
   * most `connectWaitMs`. With a connection they wait up to the send timeout for the numbered messages before them.
   *
   * @returns time at which the first remaining message is dropped
   */
  #dropUnnumbered(now: number): number {
    const queue = this.#unnumbered;
    const isConnected = this.#connection !== undefined;
    const waits = isConnected || ((this.#dialling || this.link === "connecting") && !this.#stopping);
    const waitMs = isConnected ? this.#limits.sendTimeoutMs : this.#limits.connectWaitMs;
    this.#finishUnnumbered(waits ? queue.waitingSince(waitMs, now) : queue.last, "dropped");
    return queue.oldest === undefined ? Number.POSITIVE_INFINITY : queue.oldest.at + waitMs;
  }

  /** Reports `outcome` for numbered messages up to `number` and removes them. */
  #confirmThrough(number: number, outcome: SendOutcome): void {
    const queue = this.#numbered;
    const last = Math.min(number, queue.last);
    for (let next = Math.max(queue.first, this.#reportedThrough + 1); next <= last; next++) {
      this.#effects.sendEnded(queue.at(next) as Message, outcome);
    }
    if (last >= queue.first) queue.drop(last);
  }

  /** Reports `outcome` for at-most-once messages up to queue number `last` and removes them. */
  #finishUnnumbered(last: number, outcome: "sent" | "dropped"): void {
    const queue = this.#unnumbered;
    for (let number = queue.first; number <= last; number++) {
      this.#effects.sendEnded(queue.at(number) as Message, outcome);
    }
    if (last >= queue.first) queue.drop(last);
  }

  #finishAll(): void {
    this.#confirmThrough(this.#numbered.last, this.#endedAs);
    this.#finishUnnumbered(this.#unnumbered.last, "dropped");
  }

  /** Reports a timeout for sends that have waited too long. Their messages stay in the queue. */
  #timeOut(now: number): void {
    const queue = this.#numbered;
    const through = queue.waitingSince(this.#limits.sendTimeoutMs, now);
    for (let number = Math.max(this.#reportedThrough + 1, queue.first); number <= through; number++) {
      this.#reportedThrough = number;
      this.#effects.sendEnded(queue.at(number) as Message, "timed-out");
    }
  }
}

/** State of a channel's inserts, which run one at a time, and of their announcements. */
class Inserts {
  /** Last number of the pending insert; 0 if none is pending. */
  pending = 0;
  /** Earliest time of the next insert in ms, after a failure. */
  notBefore = Number.NEGATIVE_INFINITY;
  #retryDelayMs = 0;
  #announcedNumber = 0;
  #announcedAt = Number.NEGATIVE_INFINITY;

  readonly #limits: SenderLimits;

  constructor(limits: SenderLimits) {
    this.#limits = limits;
  }

  /** Records that the pending insert committed. @returns its last number; 0 if none was pending */
  succeeded(): number {
    const number = this.pending;
    this.pending = 0;
    this.#retryDelayMs = 0;
    return number;
  }

  /** Records that the pending insert failed, or that its outcome is unknown. */
  failed(now: number): void {
    const { storeRetryMinMs, storeRetryMaxMs } = this.#limits;
    this.pending = 0;
    this.#retryDelayMs = Math.min(storeRetryMaxMs, Math.max(storeRetryMinMs, this.#retryDelayMs * 2));
    this.notBefore = now + this.#retryDelayMs;
  }

  /** Resets the state for a new epoch. The answer of a pending insert no longer counts. */
  reset(): void {
    this.pending = 0;
    this.#announcedNumber = 0;
    this.notBefore = Number.NEGATIVE_INFINITY;
  }

  /**
   * Returns true if the listener must be notified. One notification is enough until the listener has acknowledged the
   * announced messages, or may have missed it.
   */
  shouldAnnounce(stored: number, acked: number, now: number): boolean {
    if (acked < this.#announcedNumber && now < this.#announcedAt + this.#limits.ackTimeoutMs) return false;
    this.#announcedNumber = stored;
    this.#announcedAt = now;
    return true;
  }
}
