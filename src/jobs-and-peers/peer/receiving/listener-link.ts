/**
 * Receiving end of one channel: connects the channel's state machine with the sender's connection, the store and the
 * handler.
 *
 * In its turn the link passes messages to the handler ({@link HandlerCalls}) while slots are free and the time slice
 * lasts, and commits once for all messages that were handled in the turn.
 */

import type { Ack, Batch, Request } from "../../../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { protocolConstants, storeConstants } from "../../../../generated/ts/settings/peer.js";
import { HawserError } from "../../../foundation/errors/index.js";
import { postgresBackoff } from "../../../foundation/postgres/index.js";
import { Backoff, DeadlineTimer, Waiters } from "../../../foundation/runtime/index.js";
import {
  type HandlerResult,
  type Headers,
  headerValue,
  type IncomingMessage,
  type LeavingMessage,
  ListenerChannel,
  type ListenerEffects,
  listenerDefaults,
  type Position,
  type StartedMessage,
} from "../../channel/index.js";
import { type SlicedWork, timeSliceMs } from "../../handlers/dispatcher.js";
import type { HandledLink } from "../../handlers/handled-link.js";
import { done } from "../../handlers/handler-result.js";
import type { ConcurrencyLimit } from "../../handlers/limits/concurrency-limit.js";
import type { ServedTopic } from "../../handlers/topic-handlers.js";
import type { Channel, CommittedCursors, CursorCommit, LanesLeft } from "../../store/index.js";
import { drainBytes, drainRows, leasePollMs } from "../../store/index.js";
import type { ListenerConnection, ListenerHandlers } from "../../transport/index.js";
import type { PeerContext } from "../core/context.js";
import { pairsOfFrame } from "../core/frame-headers.js";
import { ChannelMessage, messageIdOf, type Source } from "./channel-message.js";
import { LeavingMessages } from "./leaving-messages.js";
import type { Receiver } from "./receiver.js";
import { RequestIntake } from "./request-intake.js";

const { messageKeyHeader } = protocolConstants;

/**
 * Number of the first messages of a channel that may have ended the process before, after an unclean exit. What it had handled and not
 * committed is not known; with each such exit the cursor passes that many messages at least.
 */
const suspectMessages = 1_024;
/** Number of messages per reading of the clock. */
const messagesPerClockRead = 64;

export class ListenerLink implements ListenerHandlers, ListenerEffects, HandledLink, SlicedWork {
  readonly channel: ListenerChannel;
  readonly requests: RequestIntake;
  readonly source: Source;
  readonly channelId: number;
  readonly #timer = new DeadlineTimer(() => this.#tick());
  /** Wakes the link when the lease may be held again. */
  readonly #leaseTimer = new DeadlineTimer(() => this.#receiver.dispatcher.wake(this));
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #queryBackoff = new Backoff(postgresBackoff);
  /** True while {@link #passThrough} is running. */
  #isPassingThrough = false;
  isClosed = false;
  /** Last connection that the channel was given. */
  #connection: ListenerConnection | undefined;
  /** Newest handled position that is not yet with the committer. */
  #handled: Position | undefined;
  readonly #whenIdle = new Waiters();
  readonly #leaving: LeavingMessages;
  /** Turns of messages that wait in a batch and so occupy no slot. */
  readonly #joined = new Set<StartedMessage>();

  readonly #receiver: Receiver;
  readonly #context: PeerContext;

  constructor(receiver: Receiver, channel: Channel) {
    this.#receiver = receiver;
    this.#context = receiver.context;
    this.source = channel;
    this.channelId = channel.channelId;
    this.requests = new RequestIntake(receiver, channel);
    const { channelCalls, context } = receiver;
    const { settings, lease } = context;
    this.channel = new ListenerChannel(
      channel.cursor,
      {
        ...listenerDefaults,
        creditBytes: settings.creditBytes,
        busyAfterMs: settings.busyAfterMs,
        retryOf: (message) => channelCalls.retryOf(message),
        limitOf: ({ topicId, headers }) => channelCalls.limitOf(topicId, headers),
        leaves: (message) => channelCalls.leaves(message),
        shortBacklogRows: storeConstants.shortBacklogRows,
        refillBelow: drainRows / 2,
        refillBelowBytes: drainBytes / 2,
        suspects: lease.wasClean ? 0 : suspectMessages,
        hasRows: channel.hasRows,
      },
      this,
    );
    this.#leaving = new LeavingMessages(receiver, this);
    this.#arm();
  }

  /** Starts to receive on an accepted connection. @returns false if the channel rejects it */
  onConnection(connection: ListenerConnection, epoch: number, backlog: number): boolean {
    if (!this.channel.onHello(connection, epoch, backlog)) return false;
    this.#connection = connection;
    this.requests.onConnection(connection);
    this.#arm();
    return true;
  }

  // ---- events of the connection ----

  onBatch(batch: Batch, connection: ListenerConnection): void {
    const { dispatcher, channelCalls } = this.#receiver;
    const topic = channelCalls.received(batch.topicId, batch.payloads.length);
    const mayRun = !dispatcher.hasWoken;
    const started = mayRun && topic !== undefined ? this.#passThrough(batch, topic, connection) : 0;
    if (started < batch.payloads.length) {
      this.channel.onMessages(connection, messagesOf(batch, started), performance.now());
      // Messages are handled immediately: waiting for another event loop turn would let them pile up behind a fast
      // sender.
      if (mayRun && !dispatcher.hasWoken) {
        this.run();
        return;
      }
      this.#arm();
    }
    this.#commitHandled();
  }

  /**
   * Fast path: passes messages straight to a handler that is neither transactional nor a batch handler and has no
   * limit, as long as it returns synchronously and no other state of the channel matters.
   *
   * @returns number of messages whose handler was started
   */
  #passThrough(
    { epoch, firstNumber, topicId, payloads, compressions, headers }: Batch,
    topic: ServedTopic,
    connection: ListenerConnection,
  ): number {
    const { channel, source } = this;
    const { dispatcher, calls } = this.#receiver;
    if (compressions.length > 0 || !channel.canPassThrough(connection, epoch, firstNumber)) return 0;
    if (!dispatcher.takeSlot()) return 0;
    let [count, bytes, entry, at] = [0, 0, 0, 0];
    let message: ChannelMessage | undefined;
    let result: HandlerResult | Promise<HandlerResult> = done;
    this.#isPassingThrough = true;
    this.#inTurn((now) => {
      // The handler may stop the peer or remove its own topic.
      if (count === payloads.length || channel.isHalted) return false;
      const pairs = headers[entry]?.index === count ? pairsOfFrame(headers[entry++]!.headers) : undefined;
      if (!calls.mayCall(topic, pairs)) return false;
      const payload = payloads[count]!;
      const position = firstNumber === 0 ? undefined : { epoch, number: firstNumber + count };
      message = new ChannelMessage(source, position, topicId, payload, pairs);
      at = now;
      result = calls.call(message, topic, 1, at);
      if (result !== done) return false;
      count += 1;
      bytes += payload.length;
      return true;
    });
    this.#isPassingThrough = false;
    topic.counts.handled.done += count;
    if (count > 0) {
      const last = firstNumber === 0 ? undefined : { epoch, number: firstNumber + count - 1 };
      channel.passedThrough(last, count, bytes, at);
    }
    if (result === done) this.#freeSlot();
    else {
      this.#onResult(channel.startPassedThrough(message!, at), result, at);
      this.#arm();
      count += 1;
    }
    topic.counts.attempts += count;
    return count;
  }

  onGoLive(connection: ListenerConnection): void {
    this.channel.onGoLive(connection);
  }

  onRequest(request: Request, connection: ListenerConnection): void {
    this.requests.onRequest(connection, request);
  }

  onCancel(id: number, connection: ListenerConnection): void {
    this.requests.onCancel(connection, id);
  }

  onDrain(): void {
    this.requests.wake();
  }

  onClosed(_error: HawserError | undefined, connection: ListenerConnection): void {
    this.channel.onClosed(connection);
    this.requests.onClosed(connection);
    this.#arm();
  }

  /** Reports the final cursor to a sender that leaves. */
  onGoodbye(connection: ListenerConnection): void {
    const { epoch, number } = this.channel.committed;
    connection.writeGoodbye({ epoch, number });
    connection.end();
  }

  /** Reports the final cursor to the sender when the peer stops. */
  sayGoodbye(): void {
    const connection = this.#connection;
    if (connection === undefined) return;
    this.onGoodbye(connection);
    setTimeout(() => connection.destroy(), postgresBackoff.maxMs).unref();
  }

  /** Destroys the connection. */
  dropConnection(): void {
    const connection = this.#connection;
    this.#connection = undefined;
    if (connection === undefined) return;
    connection.destroy();
    this.onClosed(undefined, connection);
  }

  onCommitted({ left = [], ...cursor }: CursorCommit, rows: CommittedCursors["rows"]): void {
    this.#leaving.onCommitted(left, rows);
    this.channel.onCommitted(cursor, performance.now());
    if (!this.#whenIdle.isEmpty && !this.#isBusy) this.#whenIdle.settle();
    this.#arm();
  }

  /** Stops or resumes starting handlers. */
  halt(halted: boolean): void {
    this.channel.halt(halted);
    this.#arm();
  }

  /** Has all leave that is in front of what has ended, so that the process can end. Resolves when its commit is on its way. */
  async leaveUnfinished(): Promise<void> {
    if (this.isClosed) return;
    this.channel.leaveUnfinished(performance.now());
    this.#commitHandled();
    await this.#leaving.prepared;
  }

  close(): void {
    this.isClosed = true;
    this.#timer.stop();
    this.#leaseTimer.stop();
    for (const timer of this.#timers) clearTimeout(timer);
    this.channel.close();
    this.requests.onConnection(undefined);
    this.#whenIdle.settle();
  }

  // ---- handling ----

  /** Resolves when no handler of this channel is running. */
  async idle(): Promise<void> {
    while (this.#isBusy && !this.isClosed) await this.#whenIdle.next();
  }

  /** True while a handler runs for the channel, or its message becomes a row that this process has. */
  get #isBusy(): boolean {
    return this.#isPassingThrough || this.channel.isHandling || this.#leaving.isPending;
  }

  /** Handles waiting messages while slots are free and the time slice lasts. */
  run(): void {
    // A scheduled turn can run after the close, but its messages are for the next start of the peer.
    if (this.isClosed) return;
    if (this.channel.canTake) this.#inTurn((at) => this.#startNext(at));
    this.#commitHandled();
    this.#arm();
  }

  /**
   * Starts messages one after another with `startNext`, until it returns false. Leaves the rest to a later turn when the
   * time slice is over, or while the lease may have expired.
   */
  #inTurn(startNext: (at: number) => boolean): void {
    const { dispatcher } = this.#receiver;
    const until = performance.now() + timeSliceMs;
    let at = until - timeSliceMs;
    for (let count = 0; !this.isClosed; count++) {
      if (count % messagesPerClockRead === 0) {
        at = performance.now();
        if (at > until) {
          dispatcher.wake(this);
          return;
        }
        if (!this.#context.lease.isWritable) {
          this.#leaseTimer.arm(at + leasePollMs);
          return;
        }
      }
      if (!startNext(at)) return;
    }
  }

  /** Starts the next message of the channel. @returns false if none can start now */
  #startNext(at: number): boolean {
    const { channel } = this;
    const { dispatcher, channelCalls } = this.#receiver;
    if (!channel.canTake) return false;
    if (!dispatcher.takeSlot()) {
      dispatcher.wake(this);
      return false;
    }
    const turn = channel.take(at);
    if (turn === undefined) dispatcher.freeSlot();
    else this.#onResult(turn, channelCalls.start(this, turn), at);
    return turn !== undefined;
  }

  #onResult(turn: StartedMessage, result: HandlerResult | Promise<HandlerResult>, at: number): void {
    if (result instanceof Promise) {
      result
        .then((later) => this.#finishLater(turn, later))
        .catch((err) => this.#context.logger.error({ err }, "a defect of Hawser: a handled message was not ended"));
      return;
    }
    this.#finish(turn, result, at);
    this.#freeSlot();
  }

  #freeSlot(): void {
    this.#receiver.dispatcher.freeSlot();
    this.#onHandlerEnded();
  }

  #finishLater(turn: StartedMessage, result: HandlerResult): void {
    const { dispatcher } = this.#receiver;
    if (!this.#joined.delete(turn)) dispatcher.freeSlot();
    if (this.#leaving.finish(turn, result)) {
      this.channel.finish(turn, result, performance.now());
      this.#onHandlerEnded();
      this.#arm();
      return;
    }
    this.#finish(turn, result, performance.now());
    this.#onHandlerEnded();
    if (this.isClosed) return;
    if (dispatcher.hasWoken) {
      this.#commitHandled();
      this.#arm();
      dispatcher.wake(this);
    } else this.run();
  }

  #finish(turn: StartedMessage, result: HandlerResult, at: number): void {
    const { place, running } = turn;
    const { handled } = this.#receiver.channelCalls.countsOf(running.topicId);
    this.channel.finish(turn, result, at);
    if (result.kind === "done") handled.done += 1;
    else if (result.kind === "deferred") handled.deferred += 1;
    else if (place.leaving !== undefined && place.leaving.failures.length > 0 && place.leaving.dead === undefined)
      handled.retried += 1;
  }

  #onHandlerEnded(): void {
    const { quarantine } = this.#receiver;
    if (quarantine.holder !== undefined) quarantine.handlerEnded();
    if (!this.#whenIdle.isEmpty && !this.#isBusy) this.#whenIdle.settle();
  }

  /** Commits once for all messages of the turn. */
  #commitHandled(): void {
    const handled = this.#handled;
    if (handled === undefined || this.#leaving.isPreparing) return;
    this.#handled = undefined;
    if (this.isClosed) return;
    const { committer } = this.#receiver;
    const left = this.#leaving.take(() => this.#commitHandled());
    if (left === undefined) this.#handled ??= handled;
    else committer.commit(this.channelId, handled, left);
  }

  /** Only rows of the queue are told of. */
  begin(): undefined {
    return undefined;
  }

  unserved({ running }: StartedMessage, topic: string): HandlerResult {
    return this.#receiver.channelCalls.unserved(running, topic);
  }

  onJoined(turn: StartedMessage): void {
    this.#joined.add(turn);
    this.#receiver.dispatcher.freeSlot();
  }

  /** Nothing: a numbered message of a transactional handler is a row of the queue, and an at-most-once message has nothing to complete. */
  completionOf(): undefined {
    return undefined;
  }

  /** Closes the link after a rejected commit: the channel belongs to another listener. */
  onNotOwned(): void {
    this.#receiver.closeLink(this.channelId);
  }

  // ---- effects of the channel ----

  writeAck(connection: unknown, ack: Ack): void {
    (connection as ListenerConnection).writeAck(ack);
  }

  closeConnection(connection: unknown): void {
    (connection as ListenerConnection).refuse(
      new HawserError("fenced", `a newer connection of channel ${this.source.channelName} was opened`),
    );
  }

  pauseReading(connection: unknown, paused: boolean): void {
    if (paused) (connection as ListenerConnection).pause();
    else (connection as ListenerConnection).resume();
  }

  query(after: Position): void {
    this.#onAnswer(
      this.#context.store.drain(this.channelId, after),
      ({ rows, remaining }) => {
        this.#queryBackoff.reset();
        for (const { topicId } of rows) this.#receiver.channelCalls.received(topicId, 1);
        this.channel.onRows(rows, remaining, performance.now());
        this.#commitHandled();
        this.#arm();
      },
      () => {
        this.channel.onQueryFailed();
        this.#schedule(() => this.channel.retryQuery(), this.#queryBackoff.failed());
      },
    );
  }

  deleteStale(cursor: Position): void {
    const { store, lease } = this.#context;
    store.deleteRowsUpTo(lease, this.channelId, cursor).catch((error) => this.#context.status.storeFailed(error));
  }

  commit(cursor: Position, leaving: readonly LeavingMessage[]): void {
    this.#handled = cursor;
    this.#leaving.add(leaving);
    // What leaves when its time has come follows no handler.
    queueMicrotask(() => this.#commitHandled());
  }

  mayGoOn(): boolean {
    return this.#receiver.worker.current !== undefined;
  }

  askLanes(keys: readonly (string | undefined)[]): void {
    const { store, lease, nameLost } = this.#context;
    const answered = (answer: LanesLeft | undefined): void => {
      this.channel.onLanes(answer?.left, answer?.hasRows ?? true, performance.now());
      this.#commitHandled();
      this.#arm();
    };
    const failed = (): void => this.#schedule(() => answered(undefined), this.#queryBackoff.failed());
    if (!lease.isWritable) {
      failed();
      return;
    }
    this.#onAnswer(
      store.lanesLeft(lease, this.channelId, keys, this.#receiver.channelCalls.directTopics),
      (answer) => {
        if (answer === "fenced") return nameLost("the store rejected a question about a channel");
        this.#queryBackoff.reset();
        answered(answer);
      },
      failed,
    );
  }

  ready(): void {
    if (!this.isClosed) this.#receiver.dispatcher.wake(this);
  }

  limitFreed(limit: ConcurrencyLimit): void {
    this.#receiver.dispatcher.wake(limit);
  }

  dropped(message: IncomingMessage, errorCode: string, errorMessage: string): void {
    this.#receiver.channelCalls.countsOf(message.topicId).handled.dropped += 1;
    void this.#reportDeadLetter(message, errorCode, errorMessage, false);
  }

  gap(epoch: number, first: number, last: number): void {
    const { channelName } = this.source;
    const message = `messages ${first} to ${last} of channel ${channelName} are missing: they were deleted`;
    this.#context.status.report({ kind: "gap", peer: this.source.senderName, epoch, first, last, message });
    this.#context.logger.warn({ channel: channelName, epoch, first, last }, message);
  }

  /** Reports a message that becomes a dead letter or was dropped. */
  async #reportDeadLetter(message: IncomingMessage, code: string, text: string, stored: boolean): Promise<void> {
    let topic = "";
    try {
      topic = (await this.#receiver.channelCalls.topics.of(message.topicId)) ?? "";
    } catch {
      // The status is useful without the topic.
    }
    this.#context.status.report({
      kind: "dead_letter",
      topic,
      peer: this.source.senderName,
      id: messageIdOf(this.source, message),
      stored,
      code,
      message: text,
    });
  }

  /** A message becomes a dead letter. */
  givenUp(message: IncomingMessage, code: string, text: string): void {
    this.#receiver.channelCalls.countsOf(message.topicId).handled.dead_letter += 1;
    void this.#reportDeadLetter(message, code, text, true);
  }

  /**
   * Calls back with the answer of the store, or after reporting its error as a status; not if the link is closed by
   * then.
   */
  #onAnswer<Answer>(query: Promise<Answer>, onAnswer: (answer: Answer) => void, onFailed: () => void): void {
    query
      .then((answer) => this.isClosed || onAnswer(answer))
      .catch((error: unknown) => {
        if (this.isClosed) return;
        this.#context.status.storeFailed(error);
        onFailed();
      });
  }

  /** Calls back after a delay, unless the link is closed by then. */
  #schedule(callback: () => void, delayMs: number): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      callback();
    }, delayMs);
    this.#timers.add(timer);
  }

  #tick(): void {
    this.channel.tick(performance.now());
    this.#commitHandled();
    this.#arm();
  }

  #arm(): void {
    if (!this.isClosed) this.#timer.arm(this.channel.deadline);
  }
}

/** Converts the messages of a batch from an index on. */
function messagesOf(batch: Batch, from: number): IncomingMessage[] {
  const { epoch, firstNumber, topicId, payloads, compressions, headers } = batch;
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
    messages.push({ position, topicId, payload, encoding: undefined, headers: pairs, key: lastKey, fromWire: true });
  }
  for (const encoding of compressions) {
    messages[encoding.index] = { ...(messages[encoding.index] as IncomingMessage), encoding };
  }
  return messages;
}
