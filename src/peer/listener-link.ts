/**
 * The receiving half of a channel at work: it binds the state machine to the sender's connection, the store and the
 * handler.
 *
 * When its turn has come it hands one message after another to the handler ({@link HandlerCalls}), as far as handlers are
 * free and the event loop's turn goes, and commits once for all that were handled in that turn.
 */
import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import { protocolConstants, storeConstants } from "../../generated/ts/settings/peer.js";
import {
  type DeadMessage,
  type HandlerResult,
  type Headers,
  headerValue,
  type IncomingMessage,
  type Isolation,
  ListenerChannel,
  type ListenerEffects,
  type MessageTurn,
  type ParkedMessage,
  type Position,
  type StoredRow,
} from "../channel/index.js";
import { HawserError } from "../errors/index.js";
import { Backoff, DeadlineTimer } from "../runtime/index.js";
import type { Channel, CursorCommit, CursorCommitter } from "../store/index.js";
import type { ListenerConnection } from "../transport/index.js";
import { type Ack, type Batch, Compression } from "../wire/index.js";
import type { Claims } from "./claims.js";
import type { PeerContext } from "./context.js";
import { type Turn, turnMs } from "./dispatcher.js";
import { pairsOfFrame } from "./frame-headers.js";
import type { HandledLink, Unfinished } from "./handler-call.js";
import type { Source } from "./message.js";
import { RequestIntake, type SharedByRequests } from "./request-intake.js";

const { messageKeyHeader } = protocolConstants;

/** The clock is read once for so many messages. */
const messagesPerClockRead = 64;

/** What the links of a peer share. */
export interface SharedByLinks extends SharedByRequests {
  readonly isolation: Isolation<ListenerLink>;
  readonly committer: CursorCommitter;
  /** Undefined for a peer that is no member of a group. */
  readonly claims: Claims | undefined;
  /** The channel belongs to another listener now: its link is closed and forgotten. */
  readonly onNotOwned: (connectionKey: number) => void;
}

export class ListenerLink implements ListenerEffects, HandledLink, Turn {
  readonly channel: ListenerChannel;
  readonly requests: RequestIntake;
  readonly source: Source;
  readonly connectionKey: number;
  readonly #timer = new DeadlineTimer(() => this.#tick());
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #queryBackoff = new Backoff({
    minMs: storeConstants.storeRetryMinMs,
    maxMs: storeConstants.storeRetryMaxMs,
  });
  /** How often processes that ended uncleanly had begun the first message. */
  readonly #startsBefore: number;
  /** There may be marks of this channel in the store. */
  #hasMarks: boolean;
  /** Messages are done without a mark since the cursor was handed to the committer. */
  #isUnmarked = false;
  /** What is to be parked, by its position, in order; the newest of each. */
  #toPark = new Map<string, ParkedMessage>();
  #isParking = false;
  #isIsolated = false;
  /** In the middle of {@link #pass}. */
  #isPassing = false;
  #hasCounted = false;
  isClosed = false;
  /** The connection that the channel was told of last. */
  #connection: ListenerConnection | undefined;
  /** The newest handled position that the committer has not been given. */
  #handled: Position | undefined;
  #whenIdle: (() => void)[] = [];
  #whenQuiet: (() => void)[] = [];
  /** Turns that take none of the handlers, as they are part of a batch. */
  readonly #joined = new Set<MessageTurn>();

  readonly #shared: SharedByLinks;
  readonly #context: PeerContext;

  constructor(shared: SharedByLinks, channel: Channel) {
    this.#shared = shared;
    this.#context = shared.context;
    this.source = channel;
    this.connectionKey = channel.connectionKey;
    this.#hasMarks = channel.done.length > 0;
    this.requests = new RequestIntake(shared, channel);
    this.#startsBefore = channel.attempts;
    const { settings, lease, sender } = shared.context;
    // The next message may have been what ended the process that had the channel before.
    const handedOver = !channel.composite.endsWith(`:${sender.name}`);
    this.channel = new ListenerChannel(
      channel.cursor,
      channel.done,
      {
        creditBytes: settings.creditBytes,
        maxCreditGrowth: protocolConstants.maxCreditGrowth,
        busyAfterMs: settings.busyAfterMs,
        retryOf: (message) => shared.calls.retryOf(message),
        shortBacklogRows: storeConstants.shortBacklogRows,
        maxAhead: protocolConstants.maxAhead,
        messageOverheadBytes: protocolConstants.messageOverheadBytes,
        refillBelow: storeConstants.drainRows / 2,
        refillBelowBytes: storeConstants.drainBytes / 2,
        parkDelayMs: storeConstants.parkDelayMs,
        maxParked: storeConstants.parkedMessages,
        maxParkedBytes: storeConstants.parkedBytes,
        unordered: channel.senderName === outboxConstants.peerSender,
        careful: !lease.wasClean || channel.attempts > 0 || handedOver,
      },
      this,
    );
    const at = performance.now();
    this.channel.restore(
      channel.parked.map(
        ({ epoch, number, compression, uncompressedBytes, headers, attempts, delayMs, ...message }) => ({
          message: {
            ...message,
            position: { epoch, number },
            encoding: compression === 0 ? undefined : { compression, uncompressedBytes },
            headers: headers.length === 0 ? undefined : headers,
            key: headerValue(headers, messageKeyHeader),
            fromWire: false,
          },
          attempts,
          dueAt: at + delayMs,
        }),
      ),
    );
    this.#arm();
  }

  /** The sender's connection was welcomed. */
  onConnection(connection: ListenerConnection, epoch: number, backlog: number): boolean {
    if (!this.channel.onHello(connection, epoch, backlog)) return false;
    this.#connection = connection;
    this.requests.onConnection(connection);
    this.#arm();
    return true;
  }

  // ---- events of the connection ----

  onBatch(connection: ListenerConnection, batch: Batch): void {
    const { dispatcher } = this.#shared;
    const mayRun = !dispatcher.hasWoken;
    const begun = mayRun ? this.#pass(connection, batch) : 0;
    if (begun < batch.payloads.length) {
      this.channel.onMessages(connection, messagesOf(batch, begun), performance.now());
      // At once: what waits for another turn of the event loop would only pile up behind a fast sender.
      if (mayRun && !dispatcher.hasWoken) {
        this.run();
        return;
      }
      this.#arm();
    }
    this.#commitHandled();
  }

  /**
   * Hands plain messages to the handler as they come, while each is done when the handler returns and nothing else is in play.
   *
   * @returns how many have begun
   */
  #pass(
    connection: ListenerConnection,
    { epoch, firstNumber, topicKey, payloads, compressions, headers }: Batch,
  ): number {
    const { channel, source } = this;
    const { dispatcher, calls } = this.#shared;
    if (compressions.length > 0 || !channel.canPassThrough(connection, epoch, firstNumber)) return 0;
    if (!dispatcher.takeSlot()) return 0;
    const until = performance.now() + turnMs;
    let at = until - turnMs;
    let [done, bytes, entry] = [0, 0, 0];
    let message: IncomingMessage | undefined;
    let unfinished: Unfinished | undefined;
    this.#isPassing = true;
    // The handler may stop the peer, or take its topic away.
    while (done < payloads.length && !channel.isHalted) {
      if (done % messagesPerClockRead === 0) {
        at = performance.now();
        if (at > until) dispatcher.wake(this);
        if (at > until || !this.#context.lease.isWritable) break;
      }
      const pairs = headers[entry]?.index === done ? pairsOfFrame(headers[entry++]!.headers) : undefined;
      const topic = calls.topicToCall(topicKey, pairs);
      if (topic === undefined || (pairs && headerValue(pairs, messageKeyHeader) !== undefined)) break;
      const payload = payloads[done]!;
      const position = firstNumber === 0 ? undefined : { epoch, number: firstNumber + done };
      message = { position, topicKey, payload, encoding: undefined, headers: pairs, key: undefined, fromWire: true };
      unfinished = calls.call(source, message, topic, 1);
      if (unfinished !== undefined) break;
      done += 1;
      bytes += payload.length;
    }
    this.#isPassing = false;
    if (done > 0) {
      this.#isUnmarked = true;
      channel.passedThrough(firstNumber === 0 ? undefined : { epoch, number: firstNumber + done - 1 }, done, bytes, at);
    }
    if (unfinished === undefined) this.#freeSlot();
    else {
      const turn = channel.startPassedThrough(message!, at);
      this.#end(turn, unfinished(this, turn), at);
      this.#arm();
    }
    return unfinished === undefined ? done : done + 1;
  }

  onClosed(connection: ListenerConnection): void {
    this.channel.onClosed(connection);
    this.requests.onClosed(connection);
    this.#arm();
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

  onCommitted({ done = [], unparked = [], ...cursor }: CursorCommit): void {
    this.channel.onCommitted(cursor);
    if (done.length > 0) this.channel.onMarked();
    if (unparked.length > 0) this.channel.onUnparked(unparked.length);
    this.#arm();
  }

  /** The lease is not surely held, or the peer stops: no handler is started. */
  halt(halted: boolean): void {
    this.channel.halt(halted);
    this.#arm();
  }

  /** The peer stops in good order: a start that was counted for a message that is not finished ended nothing. */
  async takeBackCount(): Promise<void> {
    if (!this.#hasCounted || !this.channel.hasOpenStart || this.channel.isHandling) return;
    this.#hasCounted = false;
    const { store, lease } = this.#context;
    await store.countAttempt(lease, this.connectionKey, -1);
  }

  close(): void {
    this.isClosed = true;
    this.#timer.stop();
    for (const timer of this.#timers) clearTimeout(timer);
    this.channel.halt(true);
    this.requests.onConnection(undefined);
    for (const resolve of [...this.#whenIdle.splice(0), ...this.#whenQuiet.splice(0)]) resolve();
    this.#shared.isolation.leave(this);
  }

  /** The channel is to be given back: nothing begins any more. Resolves when nothing of it is under way, or it is closed. */
  async giveBack(): Promise<void> {
    const quiet = new Promise<void>((resolve) => this.#whenQuiet.push(resolve));
    this.channel.giveBack();
    await Promise.all([quiet, this.requests.stop()]);
    if (!this.isClosed) await this.takeBackCount();
  }

  // ---- handling ----

  /** Resolves when no handler of this channel runs. */
  async idle(): Promise<void> {
    if (this.#isPassing || this.channel.isHandling) await new Promise<void>((resolve) => this.#whenIdle.push(resolve));
  }

  /** Handles what waits, as far as handlers are free and the event loop's turn goes. */
  run(): void {
    // Its turn may come when all is over, with messages that wait for the next start.
    if (this.isClosed) return;
    const { channel } = this;
    const { dispatcher, calls } = this.#shared;
    const until = performance.now() + turnMs;
    let at = until - turnMs;
    for (let count = 0; !this.isClosed; count++) {
      if (!channel.canTake) break;
      if (count % messagesPerClockRead === 0) {
        at = performance.now();
        if (at > until) {
          dispatcher.wake(this);
          break;
        }
        if (!this.#context.lease.isWritable) {
          this.#later(() => dispatcher.wake(this), storeConstants.leasePollMs);
          this.#commitHandled();
          return;
        }
      }
      if (!dispatcher.takeSlot()) {
        dispatcher.wake(this);
        break;
      }
      const turn = channel.take(at);
      if (turn === undefined) {
        dispatcher.freeSlot();
        break;
      }
      this.#end(turn, calls.begin(this, turn), at);
    }
    this.#commitHandled();
    this.#arm();
  }

  #end(turn: MessageTurn, result: HandlerResult | Promise<HandlerResult>, at: number): void {
    if (result instanceof Promise) {
      void result.then((later) => this.#finishLater(turn, later));
      return;
    }
    this.#finish(turn, result, at);
    this.#freeSlot();
  }

  #freeSlot(): void {
    this.#shared.dispatcher.freeSlot();
    this.#tellIdle();
  }

  #finishLater(turn: MessageTurn, result: HandlerResult): void {
    const { dispatcher } = this.#shared;
    if (!this.#joined.delete(turn)) dispatcher.freeSlot();
    this.#finish(turn, result, performance.now());
    this.#tellIdle();
    if (this.isClosed) return;
    if (dispatcher.hasWoken) {
      this.#commitHandled();
      this.#arm();
      dispatcher.wake(this);
    } else this.run();
  }

  #finish(turn: MessageTurn, result: HandlerResult, at: number): void {
    if (result.kind === "done") {
      if (result.isMarked === true) this.#hasMarks = true;
      else this.#isUnmarked = true;
    }
    this.channel.finish(turn, result, at);
  }

  #tellIdle(): void {
    const { isolation, claims } = this.#shared;
    if (isolation.holder !== undefined) isolation.handlerEnded();
    claims?.finished(this.connectionKey);
    if (this.#whenIdle.length === 0 || this.channel.isHandling) return;
    for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  /** One commit for everything that was handled in this turn. */
  #commitHandled(): void {
    const handled = this.#handled;
    if (handled === undefined) return;
    this.#handled = undefined;
    if (this.isClosed) return;
    const mayWait = !this.#isUnmarked && this.#connection === undefined && !this.channel.waitsForCommits;
    this.#isUnmarked = false;
    this.#shared.committer.commit(this.connectionKey, { cursor: handled, hasMarks: this.#hasMarks, mayWait });
  }

  /** A message is part of a batch, and takes none of the handlers. */
  onJoined(turn: MessageTurn): void {
    this.#joined.add(turn);
    this.#shared.dispatcher.freeSlot();
  }

  /** A message of this channel was to be committed, and the channel belongs to another listener now. */
  onNotOwned(): void {
    this.#shared.onNotOwned(this.connectionKey);
  }

  // ---- effects of the channel ----

  writeAck(connection: unknown, ack: Ack): void {
    (connection as ListenerConnection).writeAck(ack);
  }

  closeConnection(connection: unknown): void {
    (connection as ListenerConnection).refuse(
      new HawserError("fenced", `a newer connection of channel ${this.source.composite} has come`),
    );
  }

  pauseReading(connection: unknown, paused: boolean): void {
    if (paused) (connection as ListenerConnection).pause();
    else (connection as ListenerConnection).resume();
  }

  query(after: Position): void {
    this.#ask(
      this.#context.store.drain(this.connectionKey, after),
      ({ rows, remaining }) => {
        this.#queryBackoff.reset();
        this.channel.onRows(
          rows.map(({ epoch, number, topicKey, codec, payload, headers }): StoredRow => {
            const hasHeaders = headers.length > 0;
            const key = hasHeaders ? headerValue(headers, messageKeyHeader) : undefined;
            return {
              position: { epoch, number },
              topicKey,
              // One that waits behind its key, while others go past it, must not keep all that it was stored with.
              payload: key === undefined ? payload : Buffer.from(payload),
              encoding:
                codec === 0 ? undefined : { compression: Compression.GZIP, uncompressedBytes: gzipLength(payload) },
              headers: hasHeaders ? headers : undefined,
              key,
              fromWire: false,
            };
          }),
          remaining,
        );
        this.#shared.claims?.pump();
        this.#commitHandled();
        this.#arm();
      },
      () => {
        this.channel.onQueryFailed();
        this.#later(() => this.channel.retryQuery(), this.#queryBackoff.failed());
      },
    );
  }

  deleteStale(cursor: Position): void {
    const { store, lease } = this.#context;
    store.deleteRowsUpTo(lease, this.connectionKey, cursor).catch((error: HawserError) => this.#tellStoreError(error));
  }

  commit(cursor: Position): void {
    this.#handled = cursor;
  }

  deadLetter({ message, payload, errorCode, errorMessage, attempts, stack, failures }: DeadMessage): void {
    if (this.isClosed) return;
    this.#hasMarks = true;
    this.#shared.committer.commit(this.connectionKey, {
      deadLetter: {
        ...message.position!,
        topic: this.#shared.calls.topics.known(message.topicKey) ?? `topic key ${message.topicKey}`,
        payload,
        headers: message.headers ?? [],
        errorCode,
        errorMessage,
        attempts,
        stack,
        failures,
      },
    });
    void this.#tellDead(message, errorCode, errorMessage, true);
  }

  mark(messages: readonly Position[]): void {
    if (this.isClosed) return;
    this.#hasMarks = true;
    this.#shared.committer.commit(this.connectionKey, { messages });
  }

  park(parked: ParkedMessage): void {
    if (this.isClosed) return;
    const { epoch, number } = parked.message.position;
    this.#toPark.set(`${epoch}/${number}`, parked);
    if (!this.#isParking) {
      this.#isParking = true;
      queueMicrotask(() => this.#parkNext());
    }
  }

  /** One statement at a time, with all that waits. */
  #parkNext(): void {
    this.#isParking = false;
    if (this.isClosed || this.#toPark.size === 0) return;
    this.#isParking = true;
    const { store, lease } = this.#context;
    if (!lease.isWritable) {
      this.#later(() => this.#parkNext(), storeConstants.leasePollMs);
      return;
    }
    const parked = this.#toPark;
    this.#toPark = new Map();
    const at = performance.now();
    const rows = [...parked.values()].map(({ message, attempts, dueAt }) => ({
      ...message.position,
      topicKey: message.topicKey,
      payload: message.payload,
      compression: message.encoding?.compression ?? 0,
      uncompressedBytes: message.encoding?.uncompressedBytes ?? message.payload.length,
      headers: message.headers ?? [],
      attempts,
      delayMs: Math.max(0, dueAt - at),
    }));
    this.#ask(
      store.parkMessages(lease, this.connectionKey, rows),
      (outcome) => {
        if (outcome === "fenced") return this.#context.nameLost("parking a message was refused");
        if (outcome === "notOwned") return this.onNotOwned();
        this.#hasMarks = true;
        this.channel.onParked(rows);
        this.#commitHandled();
        this.#arm();
        this.#parkNext();
      },
      () => {
        this.#toPark = new Map([...parked, ...this.#toPark]);
        this.#later(() => this.#parkNext(), storeConstants.storeRetryMaxMs);
      },
    );
  }

  unpark(position: Position): void {
    if (this.isClosed) return;
    this.#shared.committer.commit(this.connectionKey, { unparked: [position] });
  }

  countParked(position: Position, isLast: boolean): void {
    const { store, lease } = this.#context;
    this.#count(
      isLast,
      () => store.countParked(lease, this.connectionKey, position),
      (starts) => this.channel.onParkedCounted(starts),
    );
  }

  countAttempt(): void {
    const { store, lease } = this.#context;
    this.#count(
      (this.channel.startsBefore ?? this.#startsBefore) === this.channel.maxStarts - 1,
      () => store.countAttempt(lease, this.connectionKey),
      (starts) => {
        this.#hasCounted ||= starts !== undefined;
        this.channel.onAttemptCounted(starts);
      },
    );
  }

  /** The last start that a message may have is alone: what ends the process, or its session, then is this message. */
  #count(
    isLast: boolean,
    count: () => Promise<number | "fenced">,
    onCounted: (starts: number | undefined) => void,
  ): void {
    const begin = (): void => {
      if (this.isClosed) return;
      this.#ask(
        count(),
        (starts) =>
          starts === "fenced" ? this.#context.nameLost("the count of an attempt was refused") : onCounted(starts),
        () => this.#later(() => onCounted(undefined), storeConstants.storeRetryMaxMs),
      );
    };
    this.#isIsolated ||= isLast;
    if (isLast) this.#shared.isolation.enter(this, begin);
    else begin();
  }

  ready(): void {
    if (!this.isClosed) this.#shared.dispatcher.wake(this);
  }

  drained(): void {
    for (const resolve of this.#whenQuiet.splice(0)) resolve();
  }

  dropped(message: IncomingMessage, errorCode: string, errorMessage: string): void {
    void this.#tellDead(message, errorCode, errorMessage, false);
  }

  gap(epoch: number, first: number, last: number): void {
    const { composite, sourceTopic } = this.source;
    // Claims leave numbers out, both where messages have waited and where they are.
    const isOfClaims =
      sourceTopic === outboxConstants.claimsTopic || composite.includes(`:${outboxConstants.waitingPrefix}`);
    if (isOfClaims) return;
    const message = `messages ${first} to ${last} of channel ${composite} are nowhere: they were deleted`;
    this.#context.status.tell({ kind: "gap", peer: this.source.senderName, epoch, first, last, message });
    this.#context.logger.warn({ channel: composite, epoch, first, last }, message);
  }

  /** A message was given up: the status says so. */
  async #tellDead(message: IncomingMessage, code: string, text: string, stored: boolean): Promise<void> {
    let topic = "";
    try {
      topic = (await this.#shared.calls.topics.of(message.topicKey)) ?? "";
    } catch {
      // The status is worth telling without it.
    }
    this.#context.status.tell({
      kind: "dead_letter",
      topic,
      peer: this.source.senderName,
      stored,
      code,
      message: text,
    });
  }

  /** Goes on when the store has answered, or has failed, which the status tells. Not when the link is closed by then. */
  #ask<Answer>(asked: Promise<Answer>, onAnswer: (answer: Answer) => void, onFailed: () => void): void {
    asked.then(
      (answer) => this.isClosed || onAnswer(answer),
      (error: HawserError) => {
        if (this.isClosed) return;
        this.#tellStoreError(error);
        onFailed();
      },
    );
  }

  #tellStoreError(error: HawserError): void {
    this.#context.status.tell({ kind: "listener_store_error", message: error.message, error });
  }

  /** Calls back after a while, unless the link is closed by then. */
  #later(callback: () => void, delayMs: number): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      callback();
    }, delayMs);
    this.#timers.add(timer);
  }

  #tick(): void {
    this.channel.tick(performance.now());
    this.#arm();
  }

  #arm(): void {
    if (this.#isIsolated && !this.channel.isUnderSuspicion) {
      this.#isIsolated = false;
      this.#shared.isolation.leave(this);
    }
    if (!this.isClosed) this.#timer.arm(this.channel.deadline);
  }
}

/** The messages of a batch from an index on. */
function messagesOf(batch: Batch, from: number): IncomingMessage[] {
  const { epoch, firstNumber, topicKey, payloads, compressions, headers } = batch;
  const messages: IncomingMessage[] = [];
  let entry = 0;
  let last: Headers | undefined;
  let lastKey: string | undefined;
  for (let index = from; index < payloads.length; index++) {
    while (headers[entry] !== undefined && headers[entry]!.index < index) entry++;
    const pairs = headers[entry]?.index === index ? pairsOfFrame(headers[entry++]!.headers) : undefined;
    if (pairs !== last) {
      last = pairs;
      lastKey = pairs && headerValue(pairs, messageKeyHeader);
    }
    const position = firstNumber === 0 ? undefined : { epoch, number: firstNumber + index };
    const payload = payloads[index]!;
    messages.push({ position, topicKey, payload, encoding: undefined, headers: pairs, key: lastKey, fromWire: true });
  }
  for (const encoding of compressions) {
    messages[encoding.index] = { ...(messages[encoding.index] as IncomingMessage), encoding };
  }
  return messages;
}

/** A gzip stream ends with the length of what went in, modulo 2^32 (RFC 1952). */
function gzipLength(payload: Uint8Array): number {
  if (payload.length < 4) return 0;
  return new DataView(payload.buffer, payload.byteOffset, payload.length).getUint32(payload.length - 4, true);
}
