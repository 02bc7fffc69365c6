/** Sending end of one channel: connects the channel's state machine with a connection and the store. */

import { Delivery } from "../../../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { protocolConstants } from "../../../../generated/ts/settings/peer.js";
import { asHawserError, HawserError } from "../../../foundation/errors/index.js";
import { DeadlineTimer, inSpan, Waiters } from "../../../foundation/runtime/index.js";
import { SenderChannel, type SenderEffects, type SendOutcome, senderDefaults } from "../../channel/index.js";
import { groupLeastUnderWay, Pace } from "../../handlers/pace.js";
import type { PeerContext } from "../core/context.js";
import { LinkRequests } from "./link-requests.js";
import { type DialledChannel, ListenerDial, reconnectMinMs } from "./listener-dial.js";
import {
  batchOf,
  type CheckedMessage,
  type MessageTopic,
  Outgoing,
  type Receipts,
  receiptsFor,
  type Sent,
} from "./outgoing.js";
import type { OutgoingRequest } from "./outgoing-request.js";
import { SendPacking } from "./send-packing.js";
import { startStoring } from "./spans.js";

export class SenderLink implements SenderEffects<Outgoing> {
  readonly #channel: SenderChannel<Outgoing>;
  /** Maintains the connection of the channel. */
  readonly dial: ListenerDial;
  readonly #requests: LinkRequests;
  /** Time of the last dial for a request after a failed attempt. */
  #dialledAt = Number.NEGATIVE_INFINITY;
  readonly #timer = new DeadlineTimer(() => this.#tick());
  readonly #packing: SendPacking;
  /** Rate of acknowledged messages; undefined until a group uses the link. */
  #pace: Pace | undefined;
  /** Connection and acknowledged number as of the last event of the listener. */
  #ackedConnection: unknown;
  #lastAcked = 0;
  readonly #receipts: Receipts;
  /** Shared result of at-most-once messages that are written immediately. */
  readonly #sentAtOnce: Sent;
  /** Number, bytes and offer time of the messages since the last flush; the clock is read once for all of them. */
  #unflushedSends = 0;
  #unflushedBytes = 0;
  #offeredAt = 0;
  /** True since a send was rejected for a full queue, until the next accepted message. */
  #isFull = false;
  isClosed = false;
  /** Incremented to ignore the results of running inserts. */
  #inserts = 0;
  readonly #whenIdle = new Waiters();
  /** True if a message was sent since the last call of {@link isIdle}. */
  #wasUsed = true;

  readonly #context: PeerContext;
  readonly #identity: DialledChannel;

  constructor(
    context: PeerContext,
    identity: DialledChannel,
    /** Last number that an earlier link of the channel used in this epoch. */
    lastNumber: number,
  ) {
    this.#context = context;
    this.#identity = identity;
    this.#receipts = receiptsFor(identity.listenerName);
    this.#sentAtOnce = { promise: Promise.resolve(this.#receipts.sent), copyPayload: () => undefined };
    this.#packing = new SendPacking(context, (message) => this.#queue(message));
    this.#channel = new SenderChannel(context.lease.epoch, context.settings, this, lastNumber);
    this.#requests = new LinkRequests(identity.listenerName, context.settings, () => this.#dialForRequest());
    this.dial = new ListenerDial(context, identity, this.#channel, this.#requests, this.#onEventOfListener);
    this.dial.start();
  }

  get listenerName(): string {
    return this.#identity.listenerName;
  }

  /** Newest used message number. */
  get lastNumber(): number {
    return this.#channel.lastNumber;
  }

  /** True if the last attempt to reach the listener failed, so that a message would wait without a connection. */
  get isDown(): boolean {
    return this.#channel.link === "down" || this.#channel.link === "ended";
  }

  /** True if the listener takes messages over its connection, or perhaps will soon. */
  get isOpen(): boolean {
    return this.#channel.link === "connecting" || this.#isLive;
  }

  get #isLive(): boolean {
    return this.#channel.link === "live" || this.#channel.link === "going-live";
  }

  /** True if there is a connection. */
  get isConnected(): boolean {
    return this.dial.connection !== undefined;
  }

  /** Number of messages and requests that the listener has not acknowledged. */
  get inFlight(): number {
    return this.#channel.unhandled + this.#packing.length + this.#requests.pending;
  }

  /** Upper bound of the number that the last at-least-once message has, or gets after its compression. */
  get lastPlace(): number {
    return this.#channel.lastNumber + this.#packing.length;
  }

  /**
   * True if the listener has certainly handled the message that was the last one when {@link lastPlace} had this value.
   */
  hasHandled(place: number): boolean {
    return this.#channel.ackedNumber >= place || this.inFlight === 0;
  }

  /** True if the listener's limit permits a message of this length, and the queue is not full. */
  takes(bytes: number): boolean {
    return bytes <= this.dial.maxMessageBytes && this.#channel.hasRoom(bytes, this.#packing);
  }

  /** True if the listener should get more messages: it would start them soon. */
  hasRoom(now: number): boolean {
    const { inFlight } = this;
    this.#pace ??= new Pace();
    if (!this.#isLive || this.#channel.isBusy) return false;
    return inFlight < groupLeastUnderWay || inFlight < 2 * this.#pace.recent(now);
  }

  /**
   * Sends a message; its promise is rejected with `busy` if the queue is full.
   *
   * @throws HawserError `invalid_argument` if the message is longer than the listener accepts
   */
  send(topic: MessageTopic, { delivery, payload, headers }: CheckedMessage): Sent {
    this.checkLength(payload.length, delivery);
    if (delivery === Delivery.AT_MOST_ONCE && headers === undefined && this.#writesAtOnce(topic, payload)) {
      topic.counts.sends.sent += 1;
      return this.#sentAtOnce;
    }
    const message = new Outgoing(delivery, topic, payload, headers);
    this.offer(message);
    return message;
  }

  /** Queues a message whose length was checked, as {@link send}. */
  offer(message: Outgoing): void {
    const { length } = message.payload;
    this.#wasUsed = true;
    if (!this.#packing.takes(length)) this.#queue(message);
    else if (this.#channel.hasRoom(length, this.#packing)) this.#packing.add(message);
    else this.#reject(message);
  }

  /** @throws HawserError `invalid_argument` if the listener does not accept a message of this length */
  checkLength(bytes: number, delivery: Delivery): void {
    const isNumbered = delivery === Delivery.AT_LEAST_ONCE;
    const { maxMessageBytes } = this.dial;
    const limit = isNumbered ? Math.min(maxMessageBytes, protocolConstants.maxStoredMessageBytes) : maxMessageBytes;
    if (bytes <= limit) return;
    const text = `${this.#tooLong(bytes, limit)} (${isNumbered ? "at-least-once" : "at-most-once"})`;
    throw new HawserError("invalid_argument", text);
  }

  /**
   * Sends a request over the current connection, or over a new one. Fails as `LinkRequests.send`, and with
   * `payload_too_large` if it is longer than the listener accepts.
   */
  request(topic: MessageTopic, request: OutgoingRequest): void {
    const { length } = request.payload;
    const { maxMessageBytes } = this.dial;
    if (length > maxMessageBytes) {
      request.fail(new HawserError("payload_too_large", this.#tooLong(length, maxMessageBytes)));
      return;
    }
    this.#wasUsed = true;
    this.#requests.send(topic, request);
  }

  #tooLong(bytes: number, limit: number): string {
    return `the payload has ${bytes} bytes; "${this.listenerName}" accepts at most ${limit}`;
  }

  #dialForRequest(): void {
    if (this.dial.isDialling) return;
    const at = performance.now();
    if (this.isClosed) this.#requests.onUnreachable("this peer has stopped");
    else if (at - this.#dialledAt < reconnectMinMs) {
      this.#requests.onUnreachable("the last attempt to connect failed");
    } else {
      this.#dialledAt = at;
      this.dial.connectNow();
    }
  }

  /** True if no message waits, there is no connection, and no message was sent since the last call. */
  isIdle(): boolean {
    const wasUsed = this.#wasUsed;
    this.#wasUsed = false;
    return (
      !wasUsed && this.#waitingMessages === 0 && this.#requests.pending === 0 && this.dial.connection === undefined
    );
  }

  /** Topics of the waiting messages. */
  *waitingTopics(): Iterable<MessageTopic> {
    for (const { topic } of this.#channel.unconfirmed()) yield topic;
    for (const { topic } of this.#packing.messages) yield topic;
  }

  /** Suspends or resumes storing messages, with the lease. */
  setMayStore(mayStore: boolean): void {
    this.#channel.setMayStore(mayStore, performance.now());
    this.#arm();
  }

  /**
   * Restarts unconfirmed messages in a new epoch, after a renewal of the lease on another database server. They
   * continue when the ids of the channel and its topics are known there.
   */
  restartNumbering(epoch: number): void {
    this.#inserts += 1;
    this.dial.forgetKey();
    this.#channel.restartNumbering(epoch, performance.now());
    this.#onEventOfListener();
  }

  /** Stores unconfirmed messages. Resolves when no message or request is pending. */
  async stop(): Promise<void> {
    await this.#packing.drain();
    this.#channel.stop(performance.now());
    this.#arm();
    if (this.#channel.pendingMessages > 0) await this.#whenIdle.next();
    await this.#requests.idle();
  }

  /** Rejects all pending sends, because the name is lost. */
  fence(): void {
    this.#channel.onFenced();
  }

  /** Says Goodbye, and rejects all pending sends. */
  close(): void {
    this.isClosed = true;
    this.#timer.stop();
    this.dial.close();
    this.#channel.end("abandoned");
    this.#whenIdle.settle();
  }

  // ---- effects of the channel ----

  writeBatch(delivery: Delivery, topicId: number, firstNumber: number, messages: Outgoing[]): void {
    const { connection } = this.dial;
    if (connection === undefined) return;
    try {
      connection.writeBatch(batchOf(this.#channel.epoch, delivery, topicId, firstNumber, messages));
    } catch (error) {
      // A message that cannot be written would leave a gap on this connection: drop it and store the unconfirmed
      // messages.
      queueMicrotask(() => this.dial.drop(connection, asHawserError(error)));
    }
    if (!connection.canWrite) this.#channel.pauseWriting();
  }

  writeGoLive(): void {
    this.dial.connection?.writeGoLive(this.#channel.epoch);
  }

  store(firstNumber: number, messages: Outgoing[]): void {
    const insert = ++this.#inserts;
    inSpan(startStoring(messages), () =>
      insertMessages(this.#context, this.dial.channelId, firstNumber, messages),
    ).then(
      (result) => {
        if (insert !== this.#inserts || this.isClosed) return;
        if (result === "fenced") {
          this.#channel.onFenced();
          this.#context.nameLost("the store rejected messages");
        } else this.#channel.onStored(performance.now());
        this.#arm();
      },
      (error: HawserError) => {
        if (insert !== this.#inserts || this.isClosed) return;
        const { listenerName: peer, topic } = this.#identity;
        this.#context.status.report({ kind: "sender_store_error", topic, peer, message: error.message, error });
        this.#channel.onStoreFailed(performance.now());
        this.#arm();
      },
    );
  }

  announce(): void {
    void this.#context.store.announce(this.listenerName, this.dial.channelId);
  }

  sendEnded(message: Outgoing, outcome: SendOutcome): void {
    message.complete(outcome, this.#receipts);
  }

  linkChanged(): void {}

  // ---- sending ----

  get #waitingMessages(): number {
    return this.#channel.pendingMessages + this.#packing.length;
  }

  /** Writes an at-most-once message immediately if no other message has to go first. */
  #writesAtOnce({ topicId }: MessageTopic, payload: Uint8Array): boolean {
    const { connection } = this.dial;
    if (connection === undefined || this.#packing.takes(payload.length)) return false;
    if (!this.#channel.writesAtOnce(payload.length)) return false;
    this.#wasUsed = true;
    connection.writeAtMostOnce(this.#channel.epoch, topicId, payload);
    if (!connection.canWrite) this.#channel.pauseWriting();
    return true;
  }

  /** Queues a message in the channel. */
  #queue(message: Outgoing): void {
    // Whole milliseconds are small integers, which need no heap memory when they are passed on.
    if (this.#unflushedSends === 0) this.#offeredAt = Math.floor(performance.now());
    if (!this.#channel.offer(message, this.#offeredAt)) {
      this.#reject(message);
      return;
    }
    if (this.#unflushedSends === 0) queueMicrotask(this.#flush);
    this.#unflushedSends += 1;
    this.#isFull = false;
    this.#unflushedBytes += message.payload.length;
    // A long synchronous loop of sends should not delay its first messages.
    if (this.#unflushedBytes >= senderDefaults.batchTargetBytes) this.#flush();
  }

  #reject(message: Outgoing): void {
    const { listenerName: peer } = this;
    const text = `${this.#waitingMessages} messages already wait for "${peer}"`;
    message.fail(new HawserError("busy", `${text}; await earlier sends first, or raise maxSendQueueMessages`));
    // Reported once until the queue has room again: a status for each rejected send would be a flood.
    if (this.#isFull) return;
    this.#isFull = true;
    this.#context.status.report({ kind: "sender_busy", topic: message.topic.topic, peer, message: text });
  }

  readonly #flush = (): void => {
    if (this.#unflushedSends === 0) return;
    this.#unflushedBytes = 0;
    this.#unflushedSends = 0;
    this.#channel.flush(performance.now());
    this.#arm();
  };

  #tick(): void {
    this.#channel.tick(performance.now());
    this.#arm();
  }

  /** Updates the timer and the pace after an event of the listener. */
  readonly #onEventOfListener = (): void => {
    this.#arm();
    const { ackedNumber } = this.#channel;
    const { connection } = this.dial;
    // What a new connection has acknowledged at its begin may cover a long time.
    if (connection === this.#ackedConnection && ackedNumber > this.#lastAcked)
      this.#pace?.handled(ackedNumber - this.#lastAcked, performance.now());
    this.#ackedConnection = connection;
    this.#lastAcked = ackedNumber;
  };

  /** Updates the timer after an event, and resolves the callers of {@link stop}. */
  #arm(): void {
    if (this.isClosed) return;
    this.#timer.arm(this.#channel.deadline);
    if (!this.#whenIdle.isEmpty && this.#channel.pendingMessages === 0) this.#whenIdle.settle();
  }
}

/**
 * Stores messages of a channel, numbered from `firstNumber` on.
 *
 * @returns `fenced` if another process owns the sender's name; no message was stored then
 * @throws HawserError `store_failed`; the messages may be stored nevertheless
 */
async function insertMessages(
  { store, lease }: Pick<PeerContext, "store" | "lease">,
  channelId: number,
  firstNumber: number,
  messages: readonly Outgoing[],
): Promise<"stored" | "fenced"> {
  if (!lease.isWritable) {
    const message = `the lease of the name "${lease.name}" is suspended; nothing is stored until it is held again`;
    throw new HawserError("store_failed", message);
  }
  const rows = messages.map(({ topicId, payload, encoding, headers }) => ({
    topicId,
    payload,
    codec: encoding === undefined ? (0 as const) : (1 as const),
    ...(headers === undefined ? {} : { headers }),
  }));
  return await store.storeMessages(lease, channelId, firstNumber, rows);
}
