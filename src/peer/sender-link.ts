/**
 * The sending half of a channel at work: it binds the state machine to a connection and to the store.
 */
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { type Headers, SenderChannel, type SenderEffects, type SendOutcome } from "../channel/index.js";
import { HawserError } from "../errors/index.js";
import { DeadlineTimer } from "../runtime/index.js";
import { Delivery } from "../wire/index.js";
import { asHawserError, type PeerContext } from "./context.js";
import { LinkRequests } from "./link-requests.js";
import { type DialledChannel, ListenerDial } from "./listener-dial.js";
import { batchOf, type MessageTopic, Outgoing, type Receipts, receiptsFor, type Sent } from "./outgoing.js";
import type { OutgoingRequest } from "./outgoing-request.js";
import { Pace } from "./pace.js";
import { SendPacking } from "./send-packing.js";

/** Whether a listener takes messages over its connection: now, perhaps soon, or not. */
export type Readiness = "now" | "soon" | "no";

export class SenderLink implements SenderEffects<Outgoing> {
  readonly #channel: SenderChannel<Outgoing>;
  /** What keeps the channel connected. */
  readonly dial: ListenerDial;
  readonly #requests: LinkRequests;
  /** When a connection was last dialled for a request, though the attempt before had failed. */
  #dialledAt = Number.NEGATIVE_INFINITY;
  readonly #timer = new DeadlineTimer(() => this.#tick());
  readonly #packing: SendPacking;
  /** Measured as soon as a group asks for it. */
  #pace: Pace | undefined;
  /** The connection on which the listener was last heard of, and how far it was. */
  #heardOn: unknown;
  #heardNumber = 0;
  #heardReadiness: Readiness = "soon";
  readonly #receipts: Receipts;
  /** What becomes of each at-most-once message that is written at once. */
  readonly #sent: Sent;
  #flushing = false;
  /** Messages offered since the last flush, their bytes, and when the first of them was: the clock is read once for all. */
  #unflushedSends = 0;
  #unflushedBytes = 0;
  #offeredAt = 0;
  /** A send was refused because the queue was full, and none was taken since. */
  #full = false;
  /** The link is used no more. */
  isClosed = false;
  /** Grows when the answer of an insert under way is to be dropped. */
  #inserts = 0;
  #whenSettled: (() => void)[] = [];
  /** Something was sent since {@link isIdle} was asked. */
  #wasUsed = true;

  readonly #context: PeerContext;
  readonly #identity: DialledChannel;
  readonly #onProgress: () => void;

  /** @param onProgress called when the listener has handled more, or can, or cannot, take messages now */
  constructor(
    context: PeerContext,
    identity: DialledChannel,
    /** The last number that an earlier link of the channel has used under this epoch. */
    lastNumber: number,
    onProgress: () => void,
  ) {
    this.#onProgress = onProgress;
    this.#context = context;
    this.#identity = identity;
    this.#receipts = receiptsFor(identity.listenerName);
    this.#sent = { promise: Promise.resolve(this.#receipts.sent), keep: () => undefined };
    this.#packing = new SendPacking(context, (message) => this.#offer(message));
    this.#channel = new SenderChannel(context.lease.epoch, context.settings, this, lastNumber);
    this.#requests = new LinkRequests(identity.listenerName, context.settings, () => this.#dialForRequest());
    this.dial = new ListenerDial(context, identity, this.#channel, this.#requests, () => this.#hearOfProgress());
    this.dial.begin();
  }

  /** The listener's name. */
  get listenerName(): string {
    return this.#identity.listenerName;
  }

  /** The newest number that was used. */
  get lastNumber(): number {
    return this.#channel.lastNumber;
  }

  /** Whether a message would wait for nobody: the last attempt to reach the listener failed. */
  get isDown(): boolean {
    return this.#channel.link === "down" || this.#channel.link === "ended";
  }

  /** Whether the listener takes messages over its connection now, or perhaps soon. */
  get readiness(): Readiness {
    const { link, isBusy } = this.#channel;
    // What is sent to the listener that has the channel now has a channel of its own.
    if (this.dial.isHandedOver) return "no";
    if (link === "connecting") return "soon";
    if (link !== "live" && link !== "going-live") return "no";
    return isBusy ? "soon" : "now";
  }

  /** How many messages and requests the listener has not handled yet, as far as it tells. */
  get underWay(): number {
    return this.#channel.unhandled + this.#packing.messages.size + this.#requests.underWay;
  }

  /** What the last numbered message is known by to {@link hasHandled}. */
  get lastPlace(): number {
    return this.#channel.lastNumber + this.#packing.messages.size;
  }

  /** Whether the listener has handled the message with this place. In doubt, only when it has handled all. */
  hasHandled(place: number): boolean {
    return this.#channel.ackedNumber >= place || this.underWay === 0;
  }

  /** Whether one more message of this length is taken: the listener's limit allows it, and the queue is not full. */
  takes(bytes: number): boolean {
    return bytes <= this.dial.maxMessageBytes && this.#hasRoom(bytes);
  }

  /** Whether the listener should have more to do: it would begin with it soon. */
  hasRoom(now: number): boolean {
    const { groupLeastUnderWay } = protocolConstants;
    const { underWay } = this;
    this.#pace ??= new Pace();
    return underWay < groupLeastUnderWay || underWay < 2 * this.#pace.lately(now);
  }

  /** How long one more message would take the listener, compared with others. */
  timeForMore(now: number): number {
    this.#pace ??= new Pace();
    return this.#pace.timeFor(this.underWay + 1, now);
  }

  /** Sends one message; its promise is rejected with `busy` when the queue is full. */
  send(delivery: Delivery, topic: MessageTopic, payload: Uint8Array, headers: Headers | undefined): Sent {
    if (delivery === Delivery.AT_MOST_ONCE && headers === undefined && this.#writesAtOnce(topic, payload)) {
      return this.#sent;
    }
    const message = new Outgoing(delivery, topic, payload, headers);
    this.take(message);
    return message;
  }

  /** Sends a message that has waited elsewhere; as {@link send}. */
  take(message: Outgoing): void {
    const { payload } = message;
    this.#wasUsed = true;
    if (!this.#packing.takes(payload)) this.#offer(message);
    else if (this.#hasRoom(payload.length)) this.#packing.add(message);
    else this.#refuse(message);
  }

  /** Makes a request of the listener: over the present connection, or one that is made for it. Fails as `LinkRequests.ask` */
  request(topic: MessageTopic, request: OutgoingRequest): void {
    this.#wasUsed = true;
    this.#requests.ask(topic, request);
  }

  #dialForRequest(): void {
    if (this.dial.isDialling) return;
    const at = performance.now();
    if (this.isClosed) this.#requests.onUnreachable("this peer has stopped");
    else if (at - this.#dialledAt < protocolConstants.reconnectMinMs) {
      this.#requests.onUnreachable("the last attempt to reach it failed");
    } else {
      this.#dialledAt = at;
      this.dial.connectNow();
    }
  }

  /** Whether this is the link's channel. */
  hasKey(connectionKey: number): boolean {
    return connectionKey === this.dial.connectionKey;
  }

  /** Whether the peer has the channel, not having been its listener from the beginning. */
  hasOwner(name: string): boolean {
    return this.dial.isHandedOver && this.dial.ownerName === name;
  }

  /** Whether nothing waits here, nobody is connected, and nothing was sent since this was asked last. */
  isIdle(): boolean {
    const wasUsed = this.#wasUsed;
    this.#wasUsed = false;
    return (
      !wasUsed && this.#waitingMessages === 0 && this.#requests.underWay === 0 && this.dial.connection === undefined
    );
  }

  /** The topics of the messages that wait here. */
  *waitingTopics(): Iterable<MessageTopic> {
    for (const { topic } of this.#channel.unconfirmed()) yield topic;
    for (const { topic } of this.#packing.messages) yield topic;
  }

  /** The lease is, or is not, surely held. */
  setMayStore(mayStore: boolean): void {
    this.#channel.setMayStore(mayStore, performance.now());
    this.#arm();
  }

  /**
   * The name was taken anew after the database changed servers: what is unconfirmed begins again, once the
   * dial is told which keys the channel and its topics have there.
   */
  rebase(epoch: number): void {
    this.#inserts += 1;
    this.dial.forgetKey();
    this.#channel.rebase(epoch, performance.now());
    this.#hearOfProgress();
  }

  /** Stores what is unconfirmed. Resolves when nothing is pending, requests included. */
  async stop(): Promise<void> {
    await this.#packing.drain();
    this.#channel.stop(performance.now());
    this.#arm();
    if (this.#channel.pendingMessages > 0) await new Promise<void>((resolve) => this.#whenSettled.push(resolve));
    await this.#requests.settled();
  }

  /** The name is lost: what is pending is rejected. */
  fence(): void {
    this.#channel.onFenced();
  }

  /** Ends the link: says Goodbye, and rejects what is still pending. */
  close(): void {
    this.isClosed = true;
    this.#timer.stop();
    this.dial.close();
    this.#channel.end("abandoned");
    for (const resolve of this.#whenSettled.splice(0)) resolve();
  }

  // ---- effects of the channel ----

  writeBatch(delivery: Delivery, topicKey: number, firstNumber: number, messages: Outgoing[]): void {
    const { connection } = this.dial;
    if (connection === undefined) return;
    try {
      connection.writeBatch(batchOf(this.#channel.epoch, delivery, topicKey, firstNumber, messages));
    } catch (error) {
      // What cannot be written would leave a gap on this connection: it ends, and the store takes what is unconfirmed.
      queueMicrotask(() => this.dial.drop(connection, asHawserError(error)));
    }
    if (!connection.canWrite) this.#channel.pauseWriting();
  }

  writeGoLive(): void {
    this.dial.connection?.writeGoLive(this.#channel.epoch);
  }

  store(firstNumber: number, messages: Outgoing[]): void {
    const insert = ++this.#inserts;
    insertMessages(this.#context, this.dial.connectionKey, firstNumber, messages).then(
      (result) => {
        if (insert !== this.#inserts || this.isClosed) return;
        if (result === "fenced") {
          this.#channel.onFenced();
          this.#context.nameLost("storing messages was refused");
        } else this.#channel.onStored(performance.now());
        this.#arm();
      },
      (error: HawserError) => {
        if (insert !== this.#inserts || this.isClosed) return;
        const { listenerName: peer, topic } = this.#identity;
        this.#context.status.tell({ kind: "sender_store_error", topic, peer, message: error.message, error });
        this.#channel.onStoreFailed(performance.now());
        this.#arm();
      },
    );
  }

  announce(): void {
    void this.#context.store.announce(this.dial.ownerName, this.dial.connectionKey);
  }

  sendEnded(message: Outgoing, outcome: SendOutcome): void {
    message.settle(outcome, this.#receipts);
  }

  linkChanged(): void {}

  // ---- sending ----

  get #waitingMessages(): number {
    return this.#channel.pendingMessages + this.#packing.messages.size;
  }

  /** Writes an at-most-once message that nothing has to wait for, without a place in the queue. */
  #writesAtOnce({ topicKey }: MessageTopic, payload: Uint8Array): boolean {
    const { connection } = this.dial;
    if (connection === undefined || this.#packing.takes(payload)) return false;
    if (!this.#channel.writesAtOnce(payload.length)) return false;
    this.#wasUsed = true;
    connection.writeAtMostOnce(this.#channel.epoch, topicKey, payload);
    if (!connection.canWrite) this.#channel.pauseWriting();
    return true;
  }

  #offer(message: Outgoing): void {
    // Whole milliseconds, because those need no memory of their own wherever they are passed on.
    if (this.#unflushedSends === 0) this.#offeredAt = Math.floor(performance.now());
    if (!this.#channel.offer(message, this.#offeredAt)) {
      this.#refuse(message);
      return;
    }
    this.#unflushedSends += 1;
    this.#full = false;
    this.#unflushedBytes += message.payload.length;
    // A long loop of sends need not end before the first of them leave.
    if (this.#unflushedBytes >= protocolConstants.batchTargetBytes) this.#flush();
    else this.#flushSoon();
  }

  #refuse(message: Outgoing): void {
    const { listenerName: peer } = this;
    const text = `${this.#waitingMessages} messages wait for "${peer}" already`;
    message.fail(new HawserError("busy", `${text}; await earlier sends first, or raise maxSendQueueMessages`));
    // Told once, until there was room again: a status for each refused send would be a flood.
    if (this.#full) return;
    this.#full = true;
    this.#context.status.tell({ kind: "sender_busy", topic: message.topic.topic, peer, message: text });
  }

  /** Whether a message that is not offered yet keeps within the limits of the queue. */
  #hasRoom(bytes: number): boolean {
    const { maxSendQueueMessages, maxSendQueueBytes } = this.#context.settings;
    const messages = this.#waitingMessages;
    if (messages === 0) return true;
    return (
      messages < maxSendQueueMessages && this.#channel.pendingBytes + this.#packing.bytes + bytes <= maxSendQueueBytes
    );
  }

  #flushSoon(): void {
    if (this.#flushing) return;
    this.#flushing = true;
    queueMicrotask(() => {
      this.#flushing = false;
      this.#flush();
    });
  }

  #flush(): void {
    this.#unflushedBytes = 0;
    this.#unflushedSends = 0;
    this.#channel.flush(performance.now());
    this.#arm();
  }

  #tick(): void {
    this.#channel.tick(performance.now());
    this.#arm();
  }

  /** After what comes from the listener: what it has handled over the present connection is its pace. */
  #hearOfProgress(): void {
    this.#arm();
    if (this.isClosed) return;
    const { readiness } = this;
    const { ackedNumber } = this.#channel;
    const { connection } = this.dial;
    if (ackedNumber === this.#heardNumber && readiness === this.#heardReadiness) return;
    // The first word on a connection may tell of a long time.
    if (connection === this.#heardOn && ackedNumber > this.#heardNumber) {
      this.#pace?.handled(ackedNumber - this.#heardNumber, performance.now());
    }
    this.#heardOn = connection;
    this.#heardNumber = ackedNumber;
    this.#heardReadiness = readiness;
    this.#onProgress();
  }

  /** After every event: the next deadline, and the callers that wait for the end. */
  #arm(): void {
    if (this.isClosed) return;
    this.#timer.arm(this.#channel.deadline);
    if (this.#whenSettled.length > 0 && this.#channel.pendingMessages === 0) {
      for (const resolve of this.#whenSettled.splice(0)) resolve();
    }
  }
}

/**
 * Stores messages of a channel, numbered from `firstNumber` on.
 *
 * @returns `fenced` if another process has the sender's name; nothing was stored then
 * @throws HawserError `store_failed`; perhaps they were stored all the same
 */
async function insertMessages(
  { store, lease }: Pick<PeerContext, "store" | "lease">,
  connectionKey: number,
  firstNumber: number,
  messages: readonly Outgoing[],
): Promise<"stored" | "fenced"> {
  if (!lease.isWritable) {
    const message = `the name "${lease.name}" is not surely held; nothing is written until it is`;
    throw new HawserError("store_failed", message);
  }
  const rows = messages.map(({ topicKey, payload, encoding, headers }) => ({
    topicKey,
    payload,
    codec: encoding === undefined ? (0 as const) : (1 as const),
    ...(headers === undefined ? {} : { headers }),
  }));
  return await store.storeMessages(lease, connectionKey, firstNumber, rows);
}
