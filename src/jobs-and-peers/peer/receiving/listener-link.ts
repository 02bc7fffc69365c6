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
  type DeadMessage,
  type HandlerResult,
  type Headers,
  headerValue,
  type IncomingMessage,
  ListenerChannel,
  type ListenerEffects,
  listenerDefaults,
  type ParkedMessage,
  type Position,
  type StartedMessage,
} from "../../channel/index.js";
import { type SlicedWork, timeSliceMs } from "../../handlers/dispatcher.js";
import type { HandledLink } from "../../handlers/handled-link.js";
import { done } from "../../handlers/handler-result.js";
import type { ConcurrencyLimit } from "../../handlers/limits/concurrency-limit.js";
import type { ServedTopic } from "../../handlers/topic-handlers.js";
import type { Completion } from "../../handlers/transactions/transactional.js";
import type { Channel, CursorCommit } from "../../store/index.js";
import { drainBytes, drainRows, leasePollMs } from "../../store/index.js";
import type { ListenerConnection, ListenerHandlers } from "../../transport/index.js";
import type { PeerContext } from "../core/context.js";
import { pairsOfFrame } from "../core/frame-headers.js";
import { ChannelMessage, messageIdOf, type Source } from "./channel-message.js";
import type { Receiver } from "./receiver.js";
import { RequestIntake } from "./request-intake.js";

const { messageKeyHeader } = protocolConstants;

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
  /** True if the store may have messages of this channel that are marked as handled ahead of the cursor. */
  #hasMarks: boolean;
  /** Messages to park, by position, in order; only the newest version of each. */
  #toPark = new Map<string, ParkedMessage>();
  #isParking = false;
  #isQuarantined = false;
  /** True while {@link #passThrough} is running. */
  #isPassingThrough = false;
  #hasCounted = false;
  /** True if the last finished message became a dead letter or was dropped. */
  #isDeadOrDropped = false;
  isClosed = false;
  /** Last connection that the channel was given. */
  #connection: ListenerConnection | undefined;
  /** Newest handled position that is not yet with the committer. */
  #handled: Position | undefined;
  readonly #whenIdle = new Waiters();
  readonly #whenDrained = new Waiters();
  /** Turns of messages that wait in a batch and so occupy no slot. */
  readonly #joined = new Set<StartedMessage>();

  readonly #receiver: Receiver;
  readonly #context: PeerContext;

  constructor(receiver: Receiver, channel: Channel) {
    this.#receiver = receiver;
    this.#context = receiver.context;
    this.source = channel;
    this.channelId = channel.channelId;
    this.#hasMarks = channel.done.length > 0;
    this.requests = new RequestIntake(receiver, channel);
    const { channelCalls, context } = receiver;
    const { settings, lease, sender } = context;
    // The next message may have crashed the previous owner of the channel.
    const handedOver = !channel.channelName.endsWith(`:${sender.name}`);
    this.channel = new ListenerChannel(
      channel.cursor,
      channel.done,
      {
        ...listenerDefaults,
        creditBytes: settings.creditBytes,
        busyAfterMs: settings.busyAfterMs,
        retryOf: (message) => channelCalls.retryOf(message),
        limitOf: ({ topicId, headers }) => channelCalls.limitOf(topicId, headers),
        shortBacklogRows: storeConstants.shortBacklogRows,
        refillBelow: drainRows / 2,
        refillBelowBytes: drainBytes / 2,
        maxParked: storeConstants.parkedMessages,
        maxParkedBytes: storeConstants.parkedBytes,
        hasSuspect: !lease.wasClean || channel.attempts > 0 || handedOver,
        startsBefore: channel.attempts,
      },
      this,
    );
    this.channel.restore(channel.parked);
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

  onCommitted({ done = [], unparked = [], ...cursor }: CursorCommit): void {
    this.channel.onCommitted(cursor);
    if (done.length > 0) this.channel.onMarked(done.length);
    if (unparked.length > 0) this.channel.onUnparked(unparked.length);
    this.#arm();
  }

  /** Stops or resumes starting handlers. */
  halt(halted: boolean): void {
    this.channel.halt(halted);
    this.#arm();
  }

  /**
   * Undoes the counted start of an unfinished message in a graceful stop, because it did not crash the process.
   *
   * @param isCutOff true if a handler that still runs is cut off
   */
  async uncountAttempt(isCutOff = false): Promise<void> {
    if (!this.#hasCounted || !(isCutOff || (this.channel.hasOpenStart && !this.channel.isHandling))) return;
    this.#hasCounted = false;
    const { store, lease } = this.#context;
    await store.countAttempt(lease, this.channelId, -1);
  }

  close(): void {
    this.isClosed = true;
    this.#timer.stop();
    this.#leaseTimer.stop();
    for (const timer of this.#timers) clearTimeout(timer);
    this.channel.close();
    this.requests.onConnection(undefined);
    this.#whenIdle.settle();
    this.#whenDrained.settle();
    this.#receiver.quarantine.leave(this);
  }

  /**
   * Prepares the return of the channel: no new handlers. Resolves when running handlers and their commits are complete,
   * or the link is closed.
   */
  async giveBack(): Promise<void> {
    const quiet = this.#whenDrained.next();
    this.channel.giveBack();
    await Promise.all([quiet, this.requests.stop()]);
    if (!this.isClosed) await this.uncountAttempt();
  }

  // ---- handling ----

  /** Resolves when no handler of this channel is running. */
  async idle(): Promise<void> {
    if (this.#isPassingThrough || this.channel.isHandling) await this.#whenIdle.next();
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
    if (result.kind === "done" && result.isMarked === true) this.#hasMarks = true;
    const { handled } = this.#receiver.channelCalls.countsOf(turn.running.topicId);
    this.#isDeadOrDropped = false;
    this.channel.finish(turn, result, at);
    if (result.kind === "done") handled.done += 1;
    else if (result.kind === "deferred") handled.deferred += 1;
    else if (result.kind !== "postponed" && !this.#isDeadOrDropped) handled.retried += 1;
  }

  #onHandlerEnded(): void {
    const { quarantine } = this.#receiver;
    if (quarantine.holder !== undefined) quarantine.handlerEnded();
    if (!this.#whenIdle.isEmpty && !this.channel.isHandling) this.#whenIdle.settle();
  }

  /** Commits once for all messages of the turn. */
  #commitHandled(): void {
    const handled = this.#handled;
    if (handled === undefined) return;
    this.#handled = undefined;
    if (!this.isClosed) this.#receiver.committer.commit(this.channelId, { cursor: handled, hasMarks: this.#hasMarks });
  }

  /** A channel counts starts before it passes messages on. */
  begin(): undefined {
    return undefined;
  }

  unserved({ running }: StartedMessage, topic: string): Promise<HandlerResult> {
    return this.#receiver.channelCalls.unserved(this, running, topic);
  }

  onJoined(turn: StartedMessage): void {
    this.#joined.add(turn);
    this.#receiver.dispatcher.freeSlot();
  }

  completionOf({ running, attempts, place }: StartedMessage): Completion | undefined {
    const { position } = running;
    if (position === undefined) return undefined;
    const isParked = place.parked !== undefined;
    return { channelId: this.channelId, ...position, mayBeDone: attempts > 1, isParked };
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
        this.channel.onRows(rows, remaining);
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

  commit(cursor: Position): void {
    this.#handled = cursor;
  }

  deadLetter({ message, payload, errorCode, errorMessage, attempts, stack, failures }: DeadMessage): void {
    this.#isDeadOrDropped = true;
    if (this.isClosed) return;
    this.#receiver.channelCalls.countsOf(message.topicId).handled.dead_letter += 1;
    this.#hasMarks = true;
    this.#receiver.committer.commit(this.channelId, {
      deadLetter: {
        ...message.position!,
        topic: this.#receiver.channelCalls.topics.known(message.topicId) ?? `topic id ${message.topicId}`,
        payload,
        headers: message.headers ?? [],
        errorCode,
        errorMessage,
        attempts,
        stack,
        failures,
      },
    });
    void this.#reportDeadLetter(message, errorCode, errorMessage, true);
  }

  mark(messages: readonly Position[]): void {
    if (this.isClosed) return;
    this.#hasMarks = true;
    this.#receiver.committer.commit(this.channelId, { messages });
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

  /** Parks all messages of `#toPark` with one statement, and runs one statement at a time. */
  #parkNext(): void {
    this.#isParking = false;
    if (this.isClosed || this.#toPark.size === 0) return;
    this.#isParking = true;
    const { store, lease } = this.#context;
    if (!lease.isWritable) {
      this.#schedule(() => this.#parkNext(), leasePollMs);
      return;
    }
    const parked = this.#toPark;
    this.#toPark = new Map();
    const messages = [...parked.values()];
    this.#onAnswer(
      store.parkMessages(lease, this.channelId, messages),
      (outcome) => {
        if (outcome === "fenced") return this.#context.nameLost("the store rejected a parked message");
        if (outcome === "notOwned") return this.onNotOwned();
        this.#hasMarks = true;
        this.channel.onParked(messages.map(({ message }) => message.position));
        this.#commitHandled();
        this.#arm();
        this.#parkNext();
      },
      () => {
        this.#toPark = new Map([...parked, ...this.#toPark]);
        this.#schedule(() => this.#parkNext(), postgresBackoff.maxMs);
      },
    );
  }

  unpark(position: Position): void {
    if (this.isClosed) return;
    this.#receiver.committer.commit(this.channelId, { unparked: [position] });
  }

  /** The last permitted start of a message runs in quarantine, so that a crash can only be due to this message. */
  countStart(isLast: boolean, parked?: Position): void {
    const { store, lease, nameLost } = this.#context;
    const onCounted = (starts: number | undefined): void => {
      this.#hasCounted ||= parked === undefined && starts !== undefined;
      this.channel.onStartCounted(starts, parked !== undefined);
    };
    const count = (): void => {
      if (this.isClosed) return;
      this.#onAnswer(
        parked === undefined
          ? store.countAttempt(lease, this.channelId)
          : store.countParked(lease, this.channelId, parked),
        (starts) => (starts === "fenced" ? nameLost("the store rejected the count of an attempt") : onCounted(starts)),
        () => this.#schedule(() => onCounted(undefined), postgresBackoff.maxMs),
      );
    };
    this.#isQuarantined ||= isLast;
    if (isLast) this.#receiver.quarantine.enter(this, count);
    else count();
  }

  uncountStart(): void {
    this.#hasCounted = false;
    this.#endQuarantine();
    const { store, lease } = this.#context;
    store.countAttempt(lease, this.channelId, -1).catch((error) => this.#context.status.storeFailed(error));
  }

  ready(): void {
    if (!this.isClosed) this.#receiver.dispatcher.wake(this);
  }

  limitFreed(limit: ConcurrencyLimit): void {
    this.#receiver.dispatcher.wake(limit);
  }

  drained(): void {
    this.#whenDrained.settle();
  }

  dropped(message: IncomingMessage, errorCode: string, errorMessage: string): void {
    this.#isDeadOrDropped = true;
    this.#receiver.channelCalls.countsOf(message.topicId).handled.dropped += 1;
    void this.#reportDeadLetter(message, errorCode, errorMessage, false);
  }

  gap(epoch: number, first: number, last: number): void {
    const { channelName } = this.source;
    const message = `messages ${first} to ${last} of channel ${channelName} are missing: they were deleted`;
    this.#context.status.report({ kind: "gap", peer: this.source.senderName, epoch, first, last, message });
    this.#context.logger.warn({ channel: channelName, epoch, first, last }, message);
  }

  /** Reports a message that became a dead letter or was dropped. */
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
    this.#arm();
  }

  #endQuarantine(): void {
    if (!this.#isQuarantined) return;
    this.#isQuarantined = false;
    this.#receiver.quarantine.leave(this);
  }

  #arm(): void {
    if (!this.channel.isUnderSuspicion) this.#endQuarantine();
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
