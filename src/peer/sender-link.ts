/**
 * The sending half of a channel at work: it binds the state machine to a connection, which it makes again and again, and
 * to the store.
 */
import { protocolConstants, storeConstants } from "../../generated/ts/settings/peer.js";
import {
  type DeliveryMode,
  type Headers,
  SenderChannel,
  type SenderEffects,
  type SenderLimits,
  type SendOutcome,
} from "../channel/index.js";
import { HawserError, PeerError, TransportError } from "../errors/index.js";
import { type Dialled, dial, type SenderConnection } from "../transport/index.js";
import { compress, type OutgoingBatch, referencedPayloadBytes } from "../wire/index.js";
import type { PeerContext } from "./context.js";
import { DeadlineTimer } from "./deadline-timer.js";
import { Outgoing, type Receipts, receiptsFor } from "./outgoing.js";

/** Where a listener can be reached, and what it takes. */
export interface ListenerAddress {
  /** Undefined while it is not in the phone book. */
  readonly addr: string | undefined;
  readonly maxMessageBytes: number;
}

export class SenderLink implements SenderEffects<Outgoing> {
  private readonly channel: SenderChannel<Outgoing>;
  private readonly timer = new DeadlineTimer(() => this.tick());
  private connection: SenderConnection | undefined;
  private dialling: AbortController | undefined;
  private redial: NodeJS.Timeout | undefined;
  private redialMs: number = protocolConstants.reconnectMinMs;
  private flushing = false;
  /** Messages offered since the last flush, their bytes, and when the first of them was: the clock is read once for all. */
  private unflushedSends = 0;
  private unflushedBytes = 0;
  private offeredAt = 0;
  private readonly receipts: Receipts;
  /** A send was refused because the queue was full, and none was taken since. */
  private full = false;
  private preparingMessages = 0;
  private preparingBytes = 0;
  private stopped = false;
  /** Grows when the answer of an insert under way is to be dropped. */
  private inserts = 0;
  private whenSettled: (() => void)[] = [];
  /** Sends whose payload is being compressed; those behind them wait their turn. */
  private preparing: Promise<void> | undefined;

  constructor(
    private readonly context: PeerContext,
    /** The listener's name. */
    readonly listenerName: string,
    /** The topic through which the listener was met first. */
    private readonly topic: string,
    private connectionKey: number,
    private address: ListenerAddress,
  ) {
    this.receipts = receiptsFor(this.listenerName);
    this.channel = new SenderChannel(context.lease.epoch, limitsOf(context), this);
    this.connect();
  }

  /** Whether a message would wait for nobody: the last attempt to reach the listener failed. */
  get isDown(): boolean {
    return this.channel.link === "down" || this.channel.link === "ended";
  }

  /** The greatest payload that the listener takes, as last heard. */
  get maxMessageBytes(): number {
    return this.connection?.maxMessageBytes ?? this.address.maxMessageBytes;
  }

  /** Sends one message; its promise is rejected with `busy` when the queue is full. */
  send(
    delivery: DeliveryMode,
    topicKey: number,
    payload: Uint8Array,
    headers: Headers | undefined,
    topic: string,
  ): Outgoing {
    const message = new Outgoing(this.receipts, delivery, topicKey, payload, headers);
    if (payload.length > this.context.settings.compressThresholdBytes || this.preparing !== undefined) {
      if (this.hasRoom(payload.length)) this.prepare(message, topic);
      else this.refuse(message, topic);
    } else this.offer(message, topic);
    return message;
  }

  /** The phone book has a new address for the listener, or none any more. */
  relocate(address: ListenerAddress): void {
    const moved = address.addr !== this.address.addr;
    this.address = address;
    if (address.addr === undefined) return;
    // The listener is elsewhere by its own word; the old connection may be half-open for a long time yet.
    const { connection } = this;
    if (moved && connection !== undefined) {
      this.dropConnection(connection, new TransportError("connection_lost", "the listener has another address now"));
    }
    if (this.connection !== undefined) return;
    if (moved) this.dialling?.abort();
    if (moved || this.dialling === undefined) this.connectNow();
  }

  /** The listener was announced: whatever it was, it is up now. */
  listenerAppeared(): void {
    if (this.connection === undefined) this.connectNow();
  }

  /** Another database session: the channel's key may be another one there. */
  rekey(connectionKey: number): void {
    if (connectionKey === this.connectionKey) return;
    this.connectionKey = connectionKey;
    const { connection } = this;
    if (connection === undefined) return;
    this.dropConnection(connection, new TransportError("connection_lost", "the channel's key has changed"));
  }

  /** The lease is, or is not, surely held. */
  setMayStore(mayStore: boolean): void {
    this.channel.setMayStore(mayStore, now());
    this.arm();
  }

  /** The name was taken anew after the database changed servers: what is unconfirmed begins again. */
  rebase(epoch: number): void {
    this.inserts += 1;
    this.dialling?.abort();
    this.connection?.destroy();
    this.connection = undefined;
    this.channel.rebase(epoch, now());
    this.connectNow();
    this.arm();
  }

  /** Stores what is unconfirmed. Resolves when nothing is pending. */
  async stop(): Promise<void> {
    await this.preparing;
    this.channel.stop(now());
    this.arm();
    if (this.channel.pendingMessages > 0) {
      await new Promise<void>((resolve) => this.whenSettled.push(resolve));
    }
  }

  /** The name is lost: what is pending is rejected. */
  fence(): void {
    this.channel.onFenced();
  }

  /** Ends the link: says Goodbye, and rejects what is still pending. */
  close(): void {
    this.stopped = true;
    this.timer.stop();
    clearTimeout(this.redial);
    this.dialling?.abort();
    const { connection } = this;
    this.connection = undefined;
    if (connection !== undefined) {
      connection.writeGoodbye();
      connection.end();
      setTimeout(() => connection.destroy(), protocolConstants.reconnectMinMs).unref();
    }
    this.channel.end("abandoned");
    for (const resolve of this.whenSettled.splice(0)) resolve();
  }

  // ---- effects of the channel ----

  writeBatch(delivery: DeliveryMode, topicKey: number, firstNumber: number, messages: Outgoing[]): void {
    const connection = this.connection;
    if (connection === undefined) return;
    const payloads = new Array<Uint8Array>(messages.length);
    let headers: { index: number; headers: Headers }[] | undefined;
    let compressions: { index: number; compression: "gzip" | "zstd"; uncompressedBytes: number }[] | undefined;
    for (let index = 0; index < messages.length; index++) {
      const message = messages[index] as Outgoing;
      // Such a long one stays in the connection by reference, perhaps longer than the caller waits.
      const isLent = message.payload.length >= referencedPayloadBytes && message.encoding === undefined;
      payloads[index] = isLent ? message.payload.slice() : message.payload;
      if (message.headers !== undefined) {
        headers ??= [];
        headers.push({ index, headers: message.headers });
      }
      if (message.encoding !== undefined) {
        compressions ??= [];
        compressions.push({ index, ...message.encoding });
      }
    }
    const batch: OutgoingBatch = { epoch: this.channel.epoch, delivery, firstNumber, topicKey, payloads };
    try {
      connection.writeBatch(
        headers === undefined && compressions === undefined ? batch : { ...batch, headers, compressions },
      );
    } catch (error) {
      // What cannot be written would leave a gap on this connection: it ends, and the store takes what is unconfirmed.
      queueMicrotask(() => this.dropConnection(connection, asHawserError(error)));
    }
    if (!connection.canWrite) this.channel.pauseWriting();
  }

  writeGoLive(): void {
    this.connection?.writeGoLive(this.channel.epoch);
  }

  store(messages: Outgoing[]): void {
    const insert = ++this.inserts;
    const first = messages[0] as Outgoing;
    this.insert(first.number, messages).then(
      (result) => {
        if (insert !== this.inserts || this.stopped) return;
        if (result === "fenced") {
          this.channel.onFenced();
          this.context.nameLost("storing messages was refused");
        } else this.channel.onStored(now());
        this.arm();
      },
      (error: HawserError) => {
        if (insert !== this.inserts || this.stopped) return;
        this.context.status.tell({
          kind: "sender_store_error",
          topic: this.topic,
          peer: this.listenerName,
          message: error.message,
          error,
        });
        this.channel.onStoreFailed(now());
        this.arm();
      },
    );
  }

  announce(): void {
    void this.context.store.announce(this.listenerName, this.connectionKey);
  }

  settle(message: Outgoing, outcome: SendOutcome): void {
    message.settle(outcome);
  }

  linkChanged(): void {}

  // ---- sending ----

  private offer(message: Outgoing, topic: string): void {
    if (this.unflushedSends === 0) this.offeredAt = now();
    if (this.channel.offer(message, this.offeredAt)) {
      this.unflushedSends += 1;
      this.full = false;
      this.unflushedBytes += message.payload.length;
      // A long loop of sends need not end before the first of them leave.
      if (this.unflushedBytes >= protocolConstants.batchTargetBytes) this.flush();
      else this.flushSoon();
      return;
    }
    this.refuse(message, topic);
  }

  private refuse(message: Outgoing, topic: string): void {
    const waiting = this.channel.pendingMessages + this.preparingMessages;
    const text = `${waiting} messages wait for "${this.listenerName}" already`;
    message.fail(new PeerError("busy", `${text}; await earlier sends first, or raise maxSendQueueMessages`));
    // Told once, until there was room again: a status for each refused send would be a flood.
    if (this.full) return;
    this.full = true;
    this.context.status.tell({ kind: "sender_busy", topic, peer: this.listenerName, message: text });
  }

  /** Whether a message that is not offered yet keeps within the limits of the queue. */
  private hasRoom(bytes: number): boolean {
    const { maxSendQueueMessages, maxSendQueueBytes } = this.context.settings;
    const messages = this.channel.pendingMessages + this.preparingMessages;
    if (messages === 0) return true;
    return (
      messages < maxSendQueueMessages && this.channel.pendingBytes + this.preparingBytes + bytes <= maxSendQueueBytes
    );
  }

  /** Compresses a message, and offers it behind those that are being compressed already. */
  private prepare(message: Outgoing, topic: string): void {
    const bytes = message.payload.length;
    this.preparingMessages += 1;
    this.preparingBytes += bytes;
    const work = async (): Promise<void> => {
      try {
        await this.pack(message);
      } catch (error) {
        this.context.logger.debug({ err: error }, "could not compress a payload; it travels as it is");
      }
      this.preparingMessages -= 1;
      this.preparingBytes -= bytes;
      this.offer(message, topic);
    };
    const mine: Promise<void> = (this.preparing ?? Promise.resolve()).then(work).finally(() => {
      if (this.preparing === mine) this.preparing = undefined;
    });
    this.preparing = mine;
  }

  /** Compresses a long payload: with gzip, because the message may have to be stored, and every peer reads it. */
  private async pack(message: Outgoing): Promise<void> {
    const { payload } = message;
    if (payload.length <= this.context.settings.compressThresholdBytes) return;
    const packed = await compress(payload, "gzip");
    if (packed.length >= payload.length) return;
    message.payload = packed;
    message.encoding = { compression: "gzip", uncompressedBytes: payload.length };
  }

  private async insert(firstNumber: number, messages: Outgoing[]): Promise<"stored" | "fenced"> {
    const { store, lease } = this.context;
    if (!lease.isWritable) {
      throw new PeerError(
        "store_failed",
        `the name "${lease.name}" is not surely held; nothing is written until it is`,
      );
    }
    const rows = messages.map(({ topicKey, payload, encoding, headers }) => ({
      topicKey,
      payload,
      codec: encoding === undefined ? (0 as const) : (1 as const),
      ...(headers === undefined ? {} : { headers }),
    }));
    return await store.storeMessages(lease, this.connectionKey, firstNumber, rows);
  }

  private flushSoon(): void {
    if (this.flushing) return;
    this.flushing = true;
    queueMicrotask(() => {
      this.flushing = false;
      this.flush();
    });
  }

  private flush(): void {
    this.unflushedBytes = 0;
    this.unflushedSends = 0;
    this.channel.flush(now());
    this.arm();
  }

  private tick(): void {
    this.channel.tick(now());
    this.arm();
  }

  /** After every event: the next deadline, and whoever waits for the end. */
  private arm(): void {
    if (this.stopped) return;
    this.timer.arm(this.channel.deadline());
    if (this.whenSettled.length > 0 && this.channel.pendingMessages === 0) {
      for (const resolve of this.whenSettled.splice(0)) resolve();
    }
  }

  // ---- the connection ----

  private connectNow(): void {
    clearTimeout(this.redial);
    this.redialMs = protocolConstants.reconnectMinMs;
    this.connect();
  }

  private connect(): void {
    if (this.stopped || this.dialling !== undefined || this.connection !== undefined) return;
    const { addr } = this.address;
    // Nobody says Hello with an epoch that it does not surely hold: after a failover it may be an older one again.
    const mayCall = this.context.lease.state === "held";
    if (addr === undefined || !mayCall) {
      this.channel.onDialFailed(now());
      this.arm();
      if (!mayCall) this.redialLater();
      return;
    }
    const dialling = new AbortController();
    this.dialling = dialling;
    this.channel.onDialling();
    const { context } = this;
    const handle: { connection: SenderConnection | undefined } = { connection: undefined };
    dial({
      address: addr,
      identity: {
        senderName: context.sender.name,
        sourceTopic: context.sender.sourceTopic,
        listenerName: this.listenerName,
        connectionKey: this.connectionKey,
        epoch: this.channel.epoch,
      },
      secret: context.secrets.newest,
      allowPlaintext: context.settings.allowPlaintext,
      signal: dialling.signal,
      handlers: {
        onAck: (ack) => {
          const { credit, backlog, busy, live } = ack;
          const cursor = { epoch: ack.epoch, number: ack.number };
          this.channel.onAck(handle.connection, { cursor, credit, backlog, busy, live }, now());
          this.arm();
        },
        onGoodbye: ({ epoch, number }) => {
          this.channel.onGoodbye(handle.connection, { epoch, number }, now());
          handle.connection?.end();
          this.arm();
        },
        onDrain: () => {
          this.channel.onWritable(handle.connection, now());
          this.arm();
        },
        onClosed: (error) => this.closed(handle.connection, error),
      },
    }).then(
      (dialled) => {
        if (this.dialling === dialling) this.dialling = undefined;
        handle.connection = dialled.connection;
        if (!this.stopped && !dialling.signal.aborted) this.established(dialled);
        else {
          dialled.connection.destroy();
          this.connect();
        }
      },
      (error: HawserError) => {
        if (this.dialling === dialling) this.dialling = undefined;
        if (!this.stopped) this.dialFailed(addr, error, dialling.signal.aborted);
      },
    );
  }

  private established({ connection, welcome }: Dialled): void {
    this.connection = connection;
    this.redialMs = protocolConstants.reconnectMinMs;
    const { cursorEpoch, cursor, backlog, credit } = welcome;
    this.context.status.tell({
      kind: "peer_connected",
      topic: this.topic,
      peer: this.listenerName,
      message: `connected to "${this.listenerName}" at ${this.address.addr}`,
    });
    this.channel.onConnected(
      connection,
      { cursor: { epoch: cursorEpoch, number: cursor }, backlog, credit, maxMessageBytes: connection.maxMessageBytes },
      now(),
    );
    this.arm();
  }

  private dialFailed(addr: string, error: HawserError, aborted: boolean): void {
    this.channel.onDialFailed(now());
    this.arm();
    if (aborted) {
      this.connect();
      return;
    }
    if (error.code !== "connection_lost") {
      this.context.status.tell({
        kind: "sender_send_error",
        topic: this.topic,
        peer: this.listenerName,
        message: `${addr}: ${error.message}`,
        error,
      });
    }
    void this.afterRefusal(error);
    this.redialLater();
  }

  /** A refusal is no proof: look where the truth is. */
  private async afterRefusal(error: HawserError): Promise<void> {
    const { store, lease, secrets } = this.context;
    try {
      if (error.code === "unauthenticated") await secrets.refresh();
      if (error.code !== "fenced" || lease.state !== "held") return;
      // Greater, not other: a server that a failover has left behind may still answer with an older one.
      if (((await store.peerEpoch(lease.name)) ?? 0) > lease.epoch) {
        this.context.nameLost(`"${this.listenerName}" refused an old epoch`);
      }
    } catch (cause) {
      this.context.logger.debug({ err: cause }, "could not look up why a listener refused; dialling again");
    }
  }

  private closed(connection: SenderConnection | undefined, error: HawserError | undefined): void {
    if (connection === undefined || connection !== this.connection) return;
    this.connection = undefined;
    if (this.stopped) return;
    this.context.status.tell({
      kind: "peer_disconnected",
      topic: this.topic,
      peer: this.listenerName,
      message: error === undefined ? `"${this.listenerName}" said goodbye` : error.message,
    });
    if (TransportError.is(error) && error.code === "fenced") void this.afterRefusal(error);
    this.channel.onClosed(connection, now());
    this.arm();
    this.redialLater();
  }

  private dropConnection(connection: SenderConnection, why: HawserError): void {
    if (connection !== this.connection) return;
    connection.destroy();
    this.closed(connection, why);
  }

  private redialLater(): void {
    if (this.stopped) return;
    clearTimeout(this.redial);
    const waitMs = this.redialMs * (0.5 + Math.random() / 2);
    this.redialMs = Math.min(protocolConstants.reconnectMaxMs, this.redialMs * 2);
    this.redial = setTimeout(() => this.connect(), waitMs);
  }
}

function now(): number {
  return performance.now();
}

function limitsOf({ settings }: PeerContext): SenderLimits {
  return {
    ackTimeoutMs: settings.ackTimeoutMs,
    sendTimeoutMs: settings.sendTimeoutMs,
    connectWaitMs: settings.connectWaitMs,
    maxQueueMessages: settings.maxSendQueueMessages,
    maxQueueBytes: settings.maxSendQueueBytes,
    insertRows: storeConstants.insertRows,
    insertBytes: storeConstants.insertBytes,
    batchBytes: protocolConstants.batchTargetBytes,
    batchMessages: protocolConstants.batchMaxMessages,
    shortBacklogRows: storeConstants.shortBacklogRows,
    storeRetryMinMs: storeConstants.storeRetryMinMs,
    storeRetryMaxMs: storeConstants.storeRetryMaxMs,
  };
}

/** Whether an error is one of ours. */
export function asHawserError(error: unknown): HawserError {
  if (HawserError.is(error)) return error;
  return new PeerError("internal", error instanceof Error ? error.message : String(error), { cause: error });
}
