/**
 * The receiving half of a channel at work: it binds the state machine to the sender's connection, the store and the
 * handler.
 */
import { storeConstants } from "../../generated/ts/settings/peer.js";
import {
  type DeadMessage,
  type IncomingMessage,
  ListenerChannel,
  type ListenerEffects,
  type Position,
} from "../channel/index.js";
import { type HawserError, TransportError } from "../errors/index.js";
import type { Channel } from "../store/index.js";
import type { ListenerConnection } from "../transport/index.js";
import { type Ack, type Batch, Compression, Delivery } from "../wire/index.js";
import { DeadlineTimer } from "./deadline-timer.js";
import { HandlerRunner, type RunnerLink } from "./handler-runner.js";
import type { InboxServices, Source } from "./inbox-services.js";

export class ListenerLink implements ListenerEffects, RunnerLink {
  readonly channel: ListenerChannel;
  readonly source: Source;
  readonly runner: HandlerRunner;
  readonly #timer = new DeadlineTimer(() => this.#tick());
  readonly #timers = new Set<NodeJS.Timeout>();
  #failures = 0;
  /** How often processes that ended uncleanly had begun the first message. */
  readonly #startsBefore: number;
  #isIsolated = false;
  #hasCounted = false;
  #closed = false;
  /** The connection that the channel was told of last. */
  #connection: ListenerConnection | undefined;

  readonly inbox: InboxServices;

  constructor(inbox: InboxServices, channel: Channel) {
    this.inbox = inbox;
    this.source = channel;
    this.#startsBefore = channel.attempts;
    const { settings, lease, sender } = inbox;
    // The next message may have been what ended the process that had the channel before.
    const handedOver = !channel.composite.endsWith(`:${sender.name}`);
    this.channel = new ListenerChannel(
      channel.cursor,
      {
        creditBytes: settings.creditBytes,
        busyAfterMs: settings.busyAfterMs,
        maxAttempts: settings.maxAttempts,
        retryDelayMs: settings.retryDelayMs,
        shortBacklogRows: storeConstants.shortBacklogRows,
        refillBelow: storeConstants.drainRows / 2,
        refillBelowBytes: storeConstants.drainBytes / 2,
        transactional: settings.transactional,
        careful: !lease.wasClean || channel.attempts > 0 || handedOver,
      },
      this,
    );
    this.runner = new HandlerRunner(this);
  }

  /** The sender's connection was welcomed. */
  onConnection(connection: ListenerConnection, epoch: number, backlog: number): boolean {
    if (!this.channel.onHello(connection, epoch, backlog)) return false;
    this.#connection = connection;
    this.arm();
    return true;
  }

  get connectionKey(): number {
    return this.source.connectionKey;
  }

  // ---- events of the connection ----

  onBatch(connection: ListenerConnection, batch: Batch): void {
    const { epoch, firstNumber, topicKey, payloads, compressions, headers } = batch;
    const numbered = batch.delivery === Delivery.AT_LEAST_ONCE;
    const messages = new Array<IncomingMessage>(payloads.length);
    for (let index = 0; index < payloads.length; index++) {
      messages[index] = {
        position: numbered ? { epoch, number: firstNumber + index } : undefined,
        topicKey,
        payload: payloads[index] as Uint8Array,
        encoding: undefined,
        headers: undefined,
        fromWire: true,
      };
    }
    for (const encoding of compressions) {
      messages[encoding.index] = { ...(messages[encoding.index] as IncomingMessage), encoding };
    }
    for (const { index, headers: list } of headers) {
      const pairs = list.map(({ name, value }) => [name, value] as const);
      messages[index] = { ...(messages[index] as IncomingMessage), headers: pairs };
    }
    this.channel.onMessages(connection, messages, now());
    // At once: what waits for another turn of the event loop would only pile up behind a fast sender.
    if (this.channel.isHandling || this.inbox.othersWait()) this.arm();
    else this.runner.run();
  }

  onClosed(connection: ListenerConnection): void {
    this.channel.onClosed(connection);
    this.arm();
  }

  /** The sender goes: it hears what is committed. */
  onGoodbye(connection: ListenerConnection): void {
    const { epoch, number } = this.channel.committed;
    connection.writeGoodbye({ epoch, number });
    connection.end();
  }

  /** The peer stops: the sender hears the final cursor. */
  sayGoodbye(): void {
    const connection = this.#connection;
    if (connection === undefined) return;
    this.onGoodbye(connection);
    setTimeout(() => connection.destroy(), storeConstants.storeRetryMaxMs).unref();
  }

  /** The connection is of no use any more. */
  dropConnection(): void {
    const connection = this.#connection;
    this.#connection = undefined;
    if (connection === undefined) return;
    connection.destroy();
    this.onClosed(connection);
  }

  onCommitted(cursor: Position): void {
    this.channel.onCommitted(cursor);
    this.arm();
  }

  /** The lease is not surely held, or the peer stops: no handler is started. */
  halt(halted: boolean): void {
    this.channel.halt(halted);
    this.arm();
  }

  /** The peer stops in good order: a start that was counted for a message that is not finished ended nothing. */
  async takeBackCount(): Promise<void> {
    if (!this.#hasCounted || !this.channel.hasOpenStart || this.channel.isHandling) return;
    this.#hasCounted = false;
    await this.inbox.store.takeBackAttempt(this.inbox.lease, this.connectionKey);
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  close(): void {
    this.#closed = true;
    this.#timer.stop();
    for (const timer of this.#timers) clearTimeout(timer);
    this.channel.halt(true);
    this.runner.close();
    this.inbox.leaveIsolation(this);
  }

  // ---- effects of the channel ----

  writeAck(connection: unknown, ack: Ack): void {
    (connection as ListenerConnection).writeAck(ack);
  }

  closeConnection(connection: unknown): void {
    (connection as ListenerConnection).refuse(
      new TransportError("fenced", `a newer connection of channel ${this.source.composite} has come`),
    );
  }

  pauseReading(connection: unknown, paused: boolean): void {
    if (paused) (connection as ListenerConnection).pause();
    else (connection as ListenerConnection).resume();
  }

  query(after: Position): void {
    this.inbox.store.drain(this.connectionKey, after).then(
      ({ rows, remaining }) => {
        if (this.#closed) return;
        this.#failures = 0;
        this.channel.onRows(
          rows.map((row) => ({
            position: { epoch: row.epoch, number: row.number },
            topicKey: row.topicKey,
            payload: row.payload,
            encoding:
              row.codec === 0
                ? undefined
                : { compression: Compression.GZIP, uncompressedBytes: gzipLength(row.payload) },
            headers: row.headers.length === 0 ? undefined : row.headers,
            fromWire: false,
          })),
          remaining,
        );
        this.arm();
      },
      (error: HawserError) => {
        if (this.#closed) return;
        this.inbox.status.tell({ kind: "listener_store_error", message: error.message, error });
        this.channel.onQueryFailed();
        const { storeRetryMinMs, storeRetryMaxMs } = storeConstants;
        const waitMs = Math.min(storeRetryMaxMs, storeRetryMinMs * 2 ** this.#failures);
        this.#failures += 1;
        this.later(() => this.channel.retryQuery(), waitMs);
      },
    );
  }

  deleteStale(cursor: Position): void {
    this.inbox.store.deleteRowsUpTo(this.inbox.lease, this.connectionKey, cursor).catch((error: HawserError) => {
      this.inbox.status.tell({ kind: "listener_store_error", message: error.message, error });
    });
  }

  commit(cursor: Position, dead: DeadMessage | undefined): void {
    this.runner.commit(cursor, dead);
  }

  /** The last start that a message may have is alone: what ends the process, or its session, then is this message. */
  countAttempt(): void {
    const { maxAttempts } = this.inbox.settings;
    if ((this.channel.startsBefore ?? this.#startsBefore) !== maxAttempts - 1) this.#count();
    else {
      this.#isIsolated = true;
      this.inbox.isolate(this, () => this.#count());
    }
  }

  #count(): void {
    if (this.#closed) return;
    this.inbox.store.countAttempt(this.inbox.lease, this.connectionKey).then(
      (starts) => {
        if (this.#closed) return;
        if (starts === "fenced") this.inbox.nameLost("the count of an attempt was refused");
        else {
          this.#hasCounted = true;
          this.channel.onAttemptCounted(starts);
        }
      },
      (error: HawserError) => {
        if (this.#closed) return;
        this.inbox.status.tell({ kind: "listener_store_error", message: error.message, error });
        this.later(() => this.channel.onCountFailed(), storeConstants.storeRetryMaxMs);
      },
    );
  }

  ready(): void {
    if (!this.#closed) this.inbox.wake(this.runner);
  }

  dropped(message: IncomingMessage, errorCode: string, errorMessage: string): void {
    void this.tellDead(message, errorCode, errorMessage, false);
  }

  gap(epoch: number, first: number, last: number): void {
    const message = `messages ${first} to ${last} of channel ${this.source.composite} are nowhere: somebody deleted them`;
    this.inbox.status.tell({ kind: "gap", peer: this.source.senderName, epoch, first, last, message });
    this.inbox.logger.warn({ channel: this.source.composite, epoch, first, last }, message);
  }

  /** A message was given up: the status says so. */
  async tellDead(message: IncomingMessage, code: string, text: string, stored: boolean): Promise<void> {
    let topic = "";
    try {
      topic = (await this.inbox.topicOf(message.topicKey)) ?? "";
    } catch {
      // The status is worth telling without it.
    }
    this.inbox.status.tell({
      kind: "dead_letter",
      topic,
      peer: this.source.senderName,
      stored,
      code,
      message: text,
    });
  }

  /** Calls back after a while, unless the link is closed by then. */
  later(callback: () => void, delayMs: number): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      callback();
    }, delayMs);
    this.#timers.add(timer);
  }

  #tick(): void {
    this.channel.tick(now());
    this.arm();
  }

  arm(): void {
    if (this.#isIsolated && !this.channel.isUnderSuspicion) {
      this.#isIsolated = false;
      this.inbox.leaveIsolation(this);
    }
    if (!this.#closed) this.#timer.arm(this.channel.deadline());
  }
}

/** A gzip stream ends with the length of what went in, modulo 2^32 (RFC 1952). */
function gzipLength(payload: Uint8Array): number {
  if (payload.length < 4) return 0;
  return new DataView(payload.buffer, payload.byteOffset, payload.length).getUint32(payload.length - 4, true);
}

function now(): number {
  return performance.now();
}
