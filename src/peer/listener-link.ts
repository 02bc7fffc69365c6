/**
 * The receiving half of a channel at work: it binds the state machine to the sender's connection, the store and the
 * handler.
 */
import { storeConstants } from "../../generated/ts/settings/peer.js";
import {
  type AckNews,
  type DeadMessage,
  type HandlerResult,
  type IncomingMessage,
  ListenerChannel,
  type ListenerEffects,
  type Position,
} from "../channel/index.js";
import { HawserError, PeerError, TransportError } from "../errors/index.js";
import type { Channel } from "../store/index.js";
import type { ListenerConnection } from "../transport/index.js";
import { decompress, type IncomingBatch } from "../wire/index.js";
import type { PeerContext } from "./context.js";
import { DeadlineTimer } from "./deadline-timer.js";

/** Where a message comes from. */
export type Source = Pick<Channel, "connectionKey" | "composite" | "senderName" | "sourceTopic">;

/** Hands a message to the handler, with its payload uncompressed. What it returns may be a promise. */
export type HandleIncoming = (
  message: IncomingMessage,
  to: string,
  source: Source,
  payload: Uint8Array,
  attempt: number,
) => unknown;

/** What a listener's links share beyond the context. */
export interface InboxServices extends PeerContext {
  /** The topic of a key, undefined while it is being looked up. */
  topicOf(topicKey: number): string | Promise<string | undefined>;
  serves(topic: string): boolean;
  /** Calls the handler. */
  readonly handle: HandleIncoming;
  /** The link has messages: it is called back at {@link ListenerLink.run}. */
  wake(link: ListenerLink): void;
  /** Whether one more handler may run beside the others. */
  takeSlot(): boolean;
  freeSlot(): void;
  /** Whether other channels wait for their turn. */
  othersWait(): boolean;
  commit(link: ListenerLink, cursor: Position, dead: DeadMessage | undefined, plain: Uint8Array | undefined): void;
}

const done: HandlerResult = { kind: "done" };

/** Thrown for a message whose handling does not count: it comes again. */
export const postponed = Symbol("postponed");

/** How long messages are handled before the event loop has its turn; looked at once for so many messages. */
const turnMs = 5;
const messagesPerLook = 64;

export class ListenerLink implements ListenerEffects {
  readonly channel: ListenerChannel;
  private readonly timer = new DeadlineTimer(() => this.tick());
  private readonly timers = new Set<NodeJS.Timeout>();
  private failures = 0;
  private closed = false;
  /** The connection that the channel was told of last. */
  private connection: ListenerConnection | undefined;
  /** The newest handled position that the committer has not been given. */
  private handled: Position | undefined;
  /** The running message's payload, uncompressed. */
  private plain: Uint8Array | undefined;
  private whenIdle: (() => void)[] = [];

  constructor(
    private readonly inbox: InboxServices,
    readonly source: Source,
    cursor: Position,
  ) {
    const { settings } = inbox;
    this.channel = new ListenerChannel(
      cursor,
      {
        creditBytes: settings.creditBytes,
        busyAfterMs: settings.busyAfterMs,
        maxAttempts: settings.maxAttempts,
        retryDelayMs: settings.retryDelayMs,
        shortBacklogRows: storeConstants.shortBacklogRows,
        refillBelow: storeConstants.drainRows / 2,
        refillBelowBytes: storeConstants.drainBytes / 2,
      },
      this,
    );
  }

  /** The sender's connection was welcomed. */
  onConnection(connection: ListenerConnection, epoch: number, backlog: number): boolean {
    if (this.channel.onHello(connection, epoch, backlog) === undefined) return false;
    this.connection = connection;
    this.arm();
    return true;
  }

  get connectionKey(): number {
    return this.source.connectionKey;
  }

  // ---- events of the connection ----

  onBatch(connection: ListenerConnection, batch: IncomingBatch): void {
    const { epoch, firstNumber, topicKey, payloads, compressions, headers } = batch;
    const numbered = batch.delivery === "at-least-once";
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
    for (const { index, compression, uncompressedBytes } of compressions ?? []) {
      messages[index] = { ...(messages[index] as IncomingMessage), encoding: { compression, uncompressedBytes } };
    }
    for (const { index, headers: list } of headers ?? []) {
      messages[index] = { ...(messages[index] as IncomingMessage), headers: list };
    }
    this.channel.onMessages(connection, messages, now());
    // At once: what waits for another turn of the event loop would only pile up behind a fast sender.
    if (this.channel.isHandling || this.inbox.othersWait()) this.arm();
    else this.run();
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
    const connection = this.connection;
    if (connection === undefined) return;
    this.onGoodbye(connection);
    setTimeout(() => connection.destroy(), storeConstants.storeRetryMaxMs).unref();
  }

  /** The connection is of no use any more. */
  dropConnection(): void {
    const { connection } = this;
    this.connection = undefined;
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

  /** Resolves when no handler of this channel runs. */
  async idle(): Promise<void> {
    if (this.channel.isHandling) await new Promise<void>((resolve) => this.whenIdle.push(resolve));
  }

  close(): void {
    this.closed = true;
    this.timer.stop();
    for (const timer of this.timers) clearTimeout(timer);
    this.channel.halt(true);
    for (const resolve of this.whenIdle.splice(0)) resolve();
  }

  // ---- effects of the channel ----

  writeAck(connection: unknown, { cursor, credit, backlog, busy, live }: AckNews): void {
    (connection as ListenerConnection).writeAck({
      epoch: cursor.epoch,
      number: cursor.number,
      credit,
      backlog,
      busy,
      live,
    });
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
        if (this.closed) return;
        this.failures = 0;
        this.channel.onRows(
          rows.map((row) => ({
            position: { epoch: row.epoch, number: row.number },
            topicKey: row.topicKey,
            payload: row.payload,
            encoding:
              row.codec === 0
                ? undefined
                : { compression: "gzip" as const, uncompressedBytes: gzipLength(row.payload) },
            headers: row.headers.length === 0 ? undefined : row.headers,
            fromWire: false,
          })),
          remaining,
        );
        this.arm();
      },
      (error: HawserError) => {
        if (this.closed) return;
        this.inbox.status.tell({ kind: "listener_store_error", message: error.message, error });
        this.channel.onQueryFailed();
        const { storeRetryMinMs, storeRetryMaxMs } = storeConstants;
        const waitMs = Math.min(storeRetryMaxMs, storeRetryMinMs * 2 ** this.failures);
        this.failures += 1;
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
    if (dead === undefined) {
      this.handled = cursor;
      return;
    }
    this.handled = undefined;
    this.inbox.commit(this, cursor, dead, this.plain);
  }

  ready(): void {
    if (!this.closed) this.inbox.wake(this);
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

  // ---- handling ----

  /** Handles what waits, as far as handlers are free and the event loop's turn goes. */
  run(): void {
    // Its turn may come when all is over, with messages that wait for the next start.
    if (this.closed) return;
    const { channel, inbox } = this;
    const until = now() + turnMs;
    let at = until - turnMs;
    for (let count = 0; !this.closed; count++) {
      if (channel.isHandling) break;
      if (count % messagesPerLook === 0) {
        at = now();
        if (at > until) break;
        if (!inbox.lease.isWritable) {
          this.later(() => inbox.wake(this), storeConstants.leasePollMs);
          this.commitHandled();
          return;
        }
      }
      if (!inbox.takeSlot()) {
        inbox.wake(this);
        break;
      }
      const message = channel.take(at);
      if (message === undefined) {
        inbox.freeSlot();
        this.commitHandled();
        this.arm();
        return;
      }
      const pending = this.begin(message, at);
      if (pending !== undefined) {
        pending.then(
          (result) => this.finishLater(result),
          (error) => this.finishLater(failure(error)),
        );
        this.commitHandled();
        this.arm();
        return;
      }
      inbox.freeSlot();
      this.tellIdle();
    }
    this.commitHandled();
    this.arm();
    if (!channel.isHandling && channel.waitingMessages > 0) inbox.wake(this);
  }

  /** Starts the handler. A promise when it did not finish at once. */
  private begin(message: IncomingMessage, at: number): Promise<HandlerResult> | undefined {
    this.plain = undefined;
    const topic = this.inbox.topicOf(message.topicKey);
    if (typeof topic !== "string" || message.encoding !== undefined) return this.beginLater(message, topic);
    this.plain = message.payload;
    try {
      const returned = this.call(message, topic, message.payload);
      if (isThenable(returned)) return this.await(returned);
      this.channel.finish(done, at);
    } catch (error) {
      this.channel.finish(failure(error), at);
    }
    this.plain = undefined;
    return undefined;
  }

  private async beginLater(
    message: IncomingMessage,
    topicFound: string | Promise<string | undefined>,
  ): Promise<HandlerResult> {
    let topic: string | undefined;
    try {
      topic = await topicFound;
    } catch (error) {
      this.inbox.logger.debug({ err: error }, "could not look up a topic; its message waits");
      return { kind: "postponed" };
    }
    try {
      this.plain = message.payload;
      if (topic === undefined) {
        return refused("unsubscribed", `topic key ${message.topicKey} is not in the catalog`);
      }
      const { encoding } = message;
      if (encoding !== undefined) {
        const { compression, uncompressedBytes } = encoding;
        this.plain = await decompress(
          message.payload,
          compression,
          uncompressedBytes,
          this.inbox.settings.maxMessageBytes,
        );
      }
      return await this.await(this.call(message, topic, this.plain));
    } catch (error) {
      return failure(error);
    }
  }

  private call(message: IncomingMessage, topic: string, payload: Uint8Array): unknown {
    if (!this.inbox.serves(topic)) {
      throw new PeerError("unsubscribed", `"${this.inbox.sender.name}" does not subscribe to "${topic}" any more`);
    }
    return this.inbox.handle(message, topic, this.source, payload, this.channel.attempt);
  }

  private async await(returned: unknown): Promise<HandlerResult> {
    const { handlerTimeoutMs } = this.inbox.settings;
    try {
      if (handlerTimeoutMs === undefined) await returned;
      else await withTimeout(returned, handlerTimeoutMs);
      return done;
    } catch (error) {
      return failure(error);
    }
  }

  private finishLater(result: HandlerResult): void {
    this.inbox.freeSlot();
    this.channel.finish(result, now());
    this.plain = undefined;
    this.tellIdle();
    if (this.closed) return;
    if (this.inbox.othersWait()) {
      this.commitHandled();
      this.arm();
      this.inbox.wake(this);
    } else this.run();
  }

  private tellIdle(): void {
    if (this.whenIdle.length === 0 || this.channel.isHandling) return;
    for (const resolve of this.whenIdle.splice(0)) resolve();
  }

  /** One commit for everything that was handled in this turn. */
  private commitHandled(): void {
    const { handled } = this;
    if (handled === undefined) return;
    this.handled = undefined;
    if (!this.closed) this.inbox.commit(this, handled, undefined, undefined);
  }

  /** Calls back after a while, unless the link is closed by then. */
  private later(callback: () => void, delayMs: number): void {
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      callback();
    }, delayMs);
    this.timers.add(timer);
  }

  private tick(): void {
    this.channel.tick(now());
    this.arm();
  }

  private arm(): void {
    if (!this.closed) this.timer.arm(this.channel.deadline());
  }
}

/** A gzip stream ends with the length of what went in, modulo 2^32 (RFC 1952). */
function gzipLength(payload: Uint8Array): number {
  if (payload.length < 4) return 0;
  return new DataView(payload.buffer, payload.byteOffset, payload.length).getUint32(payload.length - 4, true);
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null && typeof (value as { then?: unknown }).then === "function";
}

function refused(errorCode: HawserError["code"], errorMessage: string): HandlerResult {
  return { kind: "refused", errorCode, errorMessage };
}

function failure(error: unknown): HandlerResult {
  if (error === postponed) return { kind: "postponed" };
  const { code, message } = HawserError.is(error) ? error : { code: "handler_failed", message: messageOf(error) };
  // Trying again would not help: nobody here serves the topic.
  if (code === "unsubscribed") return refused(code, message);
  return { kind: "failed", errorCode: code, errorMessage: message };
}

function messageOf(error: unknown): string {
  try {
    return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  } catch {
    return "a value that cannot be shown";
  }
}

async function withTimeout(returned: unknown, timeoutMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new PeerError("handler_failed", `the handler took longer than ${timeoutMs} ms`)),
      timeoutMs,
    );
  });
  try {
    await Promise.race([returned, late]);
  } finally {
    clearTimeout(timer);
  }
}

function now(): number {
  return performance.now();
}
