/**
 * Calls of the user's handlers. A call ends with a {@link HandlerResult}, and never throws.
 *
 * There are two ways. A handler of single messages without a transaction is called with its message, and is done when
 * it returns ({@link HandlerCalls.call}); most messages go this way. Every other handler is called with a list of
 * messages, one or a batch of them, in one transaction if the handler is transactional (`#handle`).
 */
import { outboxConstants } from "../../../generated/ts/settings/outbox.js";
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import {
  ConcurrencyLimit,
  changeLimit,
  type HandlerResult,
  type Headers,
  headerValue,
  type IncomingMessage,
  type Limited,
  type RetryPolicy,
  type Waiter,
} from "../../channel/index.js";
import { asHawserError, HawserError, RetryAfter } from "../../errors/index.js";
import { outcomeOf } from "../../postgres/index.js";
import {
  Cancellation,
  delay,
  inSpan,
  inTime,
  nothingThrown,
  type OperationSpan,
  rpcErrorIn,
  sharedTrace,
  type TraceContext,
  traceContextOf,
  tracer,
} from "../../runtime/index.js";
import { postgresErrorOf } from "../../sql-clients/index.js";
import { type HandledMessage, isRefusedForGood, isTransientFailure, type Transaction } from "../../store/index.js";
import { decompress } from "../../wire/index.js";
import type { PeerContext } from "../core/context.js";
import type { HandledCounts } from "../core/counters.js";
import { cutOff, done, failed, marked, refused, retryLater, sessionEnded, withPlain } from "../core/handler-result.js";
import type { BatchHandling, HandlingSettings } from "../core/handling-settings.js";
import { MessageView, type Source } from "../core/message.js";
import { pairsOfFrame } from "../sending/frame-headers.js";
import { startHandling } from "../sending/spans.js";
import { BatchQueue } from "./batch-queue.js";
import type { IncomingRequest } from "./incoming-request.js";
import { answerOf, type RequestAnswer } from "./request-answer.js";
import type { ServedTopic, TopicHandler, TopicHandlers } from "./topic-handlers.js";
import { TopicNames } from "./topic-names.js";

/** Message that is in its handler. */
export interface HandledTurn extends Limited {
  readonly running: IncomingMessage;
  /**
   * Number of its starts, with this one. It is greater than the handler allows if the message has ended the process or
   * its handler's session as often as that.
   */
  readonly attempts: number;
}

/** Message of a list that a handler is called with. */
interface ListedMessage {
  readonly link: HandledLink;
  readonly turn: HandledTurn;
  /** Uncompressed payload. */
  readonly payload: Uint8Array;
  /** Decoded value, for a batch handler of one type. */
  readonly value: unknown;
}

/** End of a handler's transaction. It is rolled back without a failure if messages of it are not done. */
type TransactionEnd = "commit" | "rollBack";

/** Results of the messages of a list; undefined for those that are handled again, alone or with fewer others. */
type Results = readonly (HandlerResult | undefined)[];

/**
 * Result of passing a channel on: it moves to a listener that serves the topic, it stays because there is none, or this
 * peer does not own it.
 */
export type PassedOn = "moved" | "kept" | "notOwned";

/** Passes a channel on to a listener that serves the topic. @throws HawserError `store_failed` (as a rejection) */
export type PassOn = (channelId: number, topicId: number) => Promise<PassedOn>;

/** Link that received a message. */
export interface HandledLink extends Waiter {
  readonly source: Source;
  readonly isClosed: boolean;
  /** True if the link gives messages of topics back that the peer does not serve any more. */
  readonly givesBack: boolean;
  /** What a transaction writes that completes the message; undefined for an at-most-once message. */
  completionOf(turn: HandledTurn): HandledMessage | undefined;
  /**
   * Tells the store that a handler begins, if the store must know before.
   *
   * @returns undefined if it need not; otherwise a promise, which never rejects, of the result of a message that must not begin
   */
  begin(turn: HandledTurn): Promise<HandlerResult | undefined> | undefined;
  /** Called after a transaction was refused, because the message or its channel belongs to another listener. */
  onNotOwned(): void;
  /** Frees the slot of a message that waits in a batch: batches run outside of `concurrency`. */
  onJoined(turn: HandledTurn): void;
}

const { messageKeyHeader } = protocolConstants;
/** Time that a handler has to end after its message was cancelled, before the connection of its transaction is closed. */
const cancelledMs = 5_000;

/** SQLSTATEs of serialization_failure and deadlock_detected. */
const conflictCodes: ReadonlySet<unknown> = new Set(["40001", "40P01"]);
/** Number of conflicts after which the next one fails the attempt. */
const mostConflicts = 10;
const conflictDelayMs = 5;
const maxConflictDelayMs = 500;

const committedByHandler =
  "the handler has committed its transaction itself, so its message counts as handled and is not tried again; leave COMMIT out: Hawser commits";

/** Handler whose promise is pending. */
interface PendingHandler {
  /** Its messages; a request has none. */
  readonly messages: readonly IncomingMessage[];
  /** Closes the connection of its transaction, if it has one. */
  readonly end: (() => Promise<void> | undefined) | undefined;
}

export class HandlerCalls {
  readonly topics: TopicNames;
  readonly #context: PeerContext;
  readonly #handlers: TopicHandlers;
  readonly #passOn: PassOn;
  /** Batch queues by batch handler. */
  readonly #batches = new Map<BatchHandling, BatchQueue<ListedMessage>>();
  /** Handlers whose promise is pending, by their cancellations. */
  readonly #pendingHandlers = new Map<Cancellation, PendingHandler>();
  readonly #cancelled = new WeakSet<IncomingMessage>();
  /** Messages whose handlers are cut off. */
  readonly #cutOff = new WeakSet<IncomingMessage>();
  /** Reason with which the peer stops, from the beginning of the stop on. */
  #stopReason: HawserError | undefined;
  /** True from the deadline of the stop on. */
  #isAborted = false;
  /** True while incomplete batches wait for further messages. */
  #mayDelayBatches = true;
  /**
   * Limit of messages and requests whose topic name is not known yet. They are looked up one at a time, and each then
   * changes to the limit of its handler, so that no more of them start than that limit allows.
   */
  readonly #unknownTopics = new ConcurrencyLimit(1);

  constructor(context: PeerContext, handlers: TopicHandlers, passOn: PassOn) {
    this.#context = context;
    this.#handlers = handlers;
    this.#passOn = passOn;
    this.topics = new TopicNames(context.store);
  }

  /** Tells all message handlers that the peer stops, and starts incomplete batches from now on without waiting for further messages. */
  stop(reason: HawserError): void {
    this.#stopReason = reason;
    for (const cancellation of this.#pendingHandlers.keys()) cancellation.stop(reason);
    this.#mayDelayBatches = false;
    for (const queue of this.#batches.values()) queue.stopWaiting();
  }

  /** Cuts off the handlers of some messages, and rolls back their transactions. */
  async cutOff(messages: ReadonlySet<IncomingMessage>): Promise<void> {
    for (const message of messages) this.#cutOff.add(message);
    const pending = [...this.#pendingHandlers.values()].filter((one) =>
      one.messages.some((each) => messages.has(each)),
    );
    await Promise.all(pending.map(({ end }) => end?.()));
  }

  /** Aborts the signals of all running message handlers. An error that they throw from now on is no attempt. */
  abort(reason: HawserError): void {
    this.#isAborted = true;
    for (const cancellation of this.#pendingHandlers.keys()) cancellation.abort(reason);
  }

  /**
   * Ends a message: it does not start any more, and nothing that its handler does counts. If that runs, the signal is aborted, and the
   * connection of a transaction is closed after `cancelledMs`. The other messages of a batch that has no transaction go on.
   */
  cancel(message: IncomingMessage): void {
    this.#cancelled.add(message);
    for (const [cancellation, { messages, end }] of this.#pendingHandlers) {
      if (!messages.includes(message) || (messages.length > 1 && end === undefined)) continue;
      cancellation.abort(new HawserError("aborted", "the message was cancelled"));
      setTimeout(() => this.#pendingHandlers.has(cancellation) && void end?.(), cancelledMs).unref();
    }
  }

  /** True for a message that {@link cancel} has ended. */
  isCancelled(message: IncomingMessage): boolean {
    return this.#cancelled.has(message);
  }

  /**
   * Counts of a topic; the common counts of topics without a label if it has no handler, or its name is not known yet.
   */
  countsOf(topicId: number): HandledCounts {
    return this.#handlers.countsOf(this.topics.known(topicId));
  }

  /** Counts messages that have arrived. @returns their topic, if its name is known and it has a handler */
  received(topicId: number, messages: number): ServedTopic | undefined {
    const name = this.topics.of(topicId);
    if (typeof name === "string") {
      const topic = this.#handlers.get(name);
      (topic?.counts ?? this.#handlers.otherCounts).received += messages;
      return topic;
    }
    const count = (known?: string): void => {
      this.#handlers.countsOf(known).received += messages;
    };
    name.then(count, () => count());
    return undefined;
  }

  retryOf({ topicId, headers }: IncomingMessage): RetryPolicy {
    return withAttempts(this.#handlers.handlingOf(this.topics.known(topicId), headers).retry, headers);
  }

  /** Limit under which a message starts. */
  limitOf(topicId: number, headers: Headers | undefined): ConcurrencyLimit | undefined {
    if (!this.#handlers.hasLimits) return undefined;
    const topic = this.topics.known(topicId);
    return topic === undefined ? this.#unknownTopics : this.#handlers.limitOf(topic, headers);
  }

  /**
   * Moves a running message to its present limit, because its handler was replaced or its topic was unknown.
   *
   * @returns false if that limit is full: the message must be postponed
   */
  #changeLimit(link: HandledLink, turn: HandledTurn): boolean {
    const { topicId, headers } = turn.running;
    return changeLimit(turn, this.limitOf(topicId, headers), link);
  }

  /** Limit under which a request starts. */
  limitOfRequest({ topicId }: IncomingRequest): ConcurrencyLimit | undefined {
    if (!this.#handlers.hasLimits) return undefined;
    const topic = this.topics.known(topicId);
    return topic === undefined ? this.#unknownTopics : this.#handlers.handlerOf(topic, "requests")?.settings[0]?.limit;
  }

  /** Starts the handler. Returns a promise, which never rejects, unless the result is known at once. */
  start(link: HandledLink, turn: HandledTurn): HandlerResult | Promise<HandlerResult> {
    const { topicId, payload, encoding } = turn.running;
    if (this.isCancelled(turn.running)) return retryLater;
    const topic = this.topics.known(topicId);
    return topic === undefined || encoding !== undefined
      ? this.#startAfterLookup(link, turn)
      : this.#start(link, turn, topic, payload);
  }

  /** Starts the handler when the name of the topic is known, and the payload is uncompressed. */
  async #startAfterLookup(link: HandledLink, turn: HandledTurn): Promise<HandlerResult> {
    const { running: message } = turn;
    let topic: string | undefined;
    try {
      topic = await this.topics.of(message.topicId);
    } catch (err) {
      this.#lookupFailed(err, "could not look up a topic; its message is postponed");
      return retryLater;
    }
    if (topic === undefined) return refused("unsubscribed", `topic id ${message.topicId} is not in the catalog`);
    let plain = message.payload;
    if (message.encoding !== undefined) {
      try {
        plain = await this.#decompressed(message, message.encoding);
      } catch (error) {
        // A retry would fail in the same way, as the payload does not change.
        const { code, message: why } = asHawserError(error);
        if (message.fault === undefined) return refused(code, why);
      }
    }
    // The topic may have been unknown, and the handler may have been replaced.
    if (message.fault === undefined && !this.#changeLimit(link, turn)) return retryLater;
    return withPlain(await this.#start(link, turn, topic, plain), plain);
  }

  #start(
    link: HandledLink,
    turn: HandledTurn,
    topic: string,
    payload: Uint8Array,
  ): HandlerResult | Promise<HandlerResult> {
    const { running: message, attempts } = turn;
    const { headers, fault } = message;
    if (fault !== undefined) return refused("invalid_message", fault);
    const served = this.#handlers.get(topic);
    if (served?.isServed !== true) return this.#handleUnserved(link, turn, topic);
    if (this.#handlers.isPaused(topic)) return retryLater;
    const late = headers === undefined ? 0 : expiredMs(headers);
    if (late > 0) return refused("expired", `its time to live ended ${late} ms before its handler could start`);
    const handling = this.#handlers.handlingOf(topic, headers);
    const { batch, transactional } = handling;
    const most = withAttempts(handling.retry, headers).attempts;
    if (attempts > most) {
      const why = "the process or its Postgres session ended while its handler was running";
      return refused("handler_crashed", `${why}, and it has no attempts left`);
    }
    if (batch !== undefined) return this.#addToBatch(handling, batch, link, turn, topic, payload);
    if (transactional || message.kept !== undefined) {
      const alone = [{ link, turn, payload, value: undefined }];
      return this.#handle(topic, handling, alone).then(([result]) => result!);
    }
    const begins = link.begin(turn);
    const call = (): HandlerResult | Promise<HandlerResult> => {
      served.counts.attempts += 1;
      return this.call(link.source, message, served, payload, attempts, performance.now());
    };
    if (begins === undefined) return call();
    return begins.then((withheld) => withheld ?? this.#overtakenBy(link, message) ?? call());
  }

  /** Result of a message that was cancelled, or cut off by a stop, while Postgres was told of its start; undefined if it may begin. */
  #overtakenBy(link: HandledLink, message: IncomingMessage): HandlerResult | undefined {
    if (this.isCancelled(message)) return retryLater;
    if (this.#isAborted) return cutOff;
    return link.isClosed ? retryLater : undefined;
  }

  /**
   * Returns true if a message can go straight to {@link call}: its topic is not paused, its handler has no limit, its time
   * to live has not ended, and it has no key.
   */
  mayCall({ name, isServed, messages }: ServedTopic, headers: Headers | undefined): boolean {
    if (!isServed || messages === undefined || this.#handlers.isPaused(name)) return false;
    if (headers !== undefined && (expiredMs(headers) > 0 || headerValue(headers, messageKeyHeader) !== undefined))
      return false;
    const { batch, transactional, limit } = messages.settingsOf(headers) ?? this.#handlers.defaults;
    return !transactional && batch === undefined && limit === undefined;
  }

  /**
   * Calls a handler that is neither transactional nor a batch handler.
   *
   * @param startedAt time of the call (`performance.now()`, ms); a recent one is enough
   * @returns {@link done} if the handler has returned, a result if it has thrown, a promise if it returned one; the
   * promise never rejects
   */
  call(
    source: Source,
    message: IncomingMessage,
    topic: ServedTopic,
    payload: Uint8Array,
    attempt: number,
    startedAt: number,
  ): HandlerResult | Promise<HandlerResult> {
    const view = new MessageView(this.#handlers.reply, source, message, topic.name, payload, attempt);
    if (this.#stopReason !== undefined) view.cancellation.stop(this.#stopReason);
    const span = tracer && startHandling("process", this.#context, topic.name, [message], attempt);
    try {
      const returned = span === undefined ? this.#handlers.handle(topic, view) : this.#handleIn(span, topic, view);
      if (isThenable(returned)) return this.#awaitHandler(source, message, view, startedAt, returned, span);
      span?.end();
      return done;
    } catch (error) {
      span?.end(error ?? nothingThrown);
      return this.#failed(source, message, topic.name, attempt, error);
    }
  }

  /** Apart from {@link call}, where a closure would take memory for each message. */
  #handleIn(span: OperationSpan, topic: ServedTopic, view: MessageView): unknown {
    return span.run(() => this.#handlers.handle(topic, view));
  }

  async #awaitHandler(
    source: Source,
    message: IncomingMessage,
    view: MessageView,
    startedAt: number,
    returned: PromiseLike<unknown>,
    span: OperationSpan | undefined,
  ): Promise<HandlerResult> {
    const { topic, attempt, cancellation } = view;
    const { timeoutMs } = this.#handlers.handlingOf(topic, view.pairs);
    try {
      const pending = { messages: [message], end: undefined };
      const value = await this.#withTimeout(startedAt, returned, cancellation, topic, timeoutMs, pending);
      span?.end();
      return value === retryLater ? retryLater : done;
    } catch (error) {
      span?.end(error ?? nothingThrown);
      return this.isCancelled(message) ? retryLater : this.#failed(source, message, topic, attempt, error);
    }
  }

  /**
   * Calls the handler of a request.
   *
   * @param topic undefined if the id of the topic is not in the catalog
   * @returns the value that the handler returned, a {@link RequestAnswer} made of it, or a promise of either
   * @throws the error of the handler or of `answerOf` (then `request.isStarted` is true), or the reason why the handler
   * was not called; synchronously or as a rejection
   */
  answer(request: IncomingRequest, topic: string | undefined): unknown {
    if (topic === undefined) throw new HawserError("unsubscribed", `topic id ${request.topicId} is not in the catalog`);
    const handler = this.#requestHandlerOf(request, topic);
    const span = tracer && startHandling("respond", this.#context, topic, [request], 1);
    if (span !== undefined) {
      const call = async () => answerOf(await this.#answerOf(request, topic, handler, span.context), request);
      return inSpan(span, call, ({ headers }) => rpcErrorIn(pairsOfFrame(headers)));
    }
    return this.#answerOf(request, topic, handler, undefined);
  }

  /** @param trace context of the span, if there is one */
  #answerOf(request: IncomingRequest, topic: string, handler: TopicHandler, trace: TraceContext | undefined): unknown {
    return handler.settings[0]?.transactional
      ? this.#answerInTransaction(request, topic, handler, trace ?? traceContextOf(request.headers ?? []))
      : this.#callFor(request, topic, handler, undefined);
  }

  /** @throws HawserError `unsubscribed`, `not_supported` */
  #requestHandlerOf({ source, topicId }: IncomingRequest, topic: string): TopicHandler {
    if (!this.#handlers.serves(topic)) {
      this.#passChannelOn(source, topicId).catch((err) => {
        this.#context.logger.debug({ err }, "could not look up a listener for the topic of a request");
      });
      throw this.#handlers.unserved(topic);
    }
    const handler = this.#handlers.handlerOf(topic, "requests");
    if (handler !== undefined) return handler;
    const { name } = this.#context.sender;
    throw new HawserError(
      "not_supported",
      `"${name}" handles messages of "${topic}" but no requests; set a handler with respond`,
    );
  }

  /** The answer is sent after the transaction has ended: a transaction whose answer cannot be sent must not commit. */
  async #answerInTransaction(
    request: IncomingRequest,
    topic: string,
    handler: TopicHandler,
    trace: TraceContext | undefined,
  ): Promise<RequestAnswer> {
    let answer: RequestAnswer | undefined;
    await this.#context.store.runInTransaction(
      async (client) => {
        answer = answerOf(await this.#callFor(request, topic, handler, client), request);
        return answer.rollBack ? "rollBack" : "commit";
      },
      this.#originOf(topic, trace),
    );
    return answer!;
  }

  /** Calls the handler of a request. Returns a promise unless the handler finished synchronously. */
  #callFor(request: IncomingRequest, topic: string, handler: TopicHandler, client: Transaction | undefined): unknown {
    request.isStarted = true;
    const { payload, source } = request;
    const view = new MessageView(this.#handlers.reply, source, request, topic, payload, 1, client, request);
    const returned = handler.handle(view);
    const timeoutMs = handler.settings[0]?.timeoutMs;
    if (timeoutMs === undefined || !isThenable(returned)) return returned;
    const pending = { messages: [], end: client && (() => void endClient(client)) };
    return this.#withTimeout(undefined, returned, request, topic, timeoutMs, pending);
  }

  /**
   * Passes a channel that was taken over on to a listener that serves the topic, and postpones the message. An
   * at-most-once message cannot be postponed and is dropped; later messages go to the new owner.
   */
  async #handleUnserved(link: HandledLink, { running }: HandledTurn, topic: string): Promise<HandlerResult> {
    if (link.givesBack) return retryLater;
    const { code, message } = this.#handlers.unserved(topic);
    const unserved = refused(code, message);
    try {
      const passedOn = await this.#passChannelOn(link.source, running.topicId);
      if (link.isClosed) return retryLater;
      // A dead letter of a channel that has another owner could be committed later, if this peer owns the channel again
      // by then.
      if (passedOn === "notOwned") link.onNotOwned();
      return passedOn === "kept" || running.position === undefined ? unserved : retryLater;
    } catch (err) {
      this.#lookupFailed(err, "could not look up a listener for a topic; its message is postponed");
      return running.position === undefined ? unserved : retryLater;
    }
  }

  /** Reports a look-up that Postgres refuses. One that may succeed soon is only logged. */
  #lookupFailed(err: unknown, message: string): void {
    this.#context.logger.debug({ err }, message);
    const failed = asHawserError(err);
    if (failed.code === "store_failed" && !isTransientFailure(failed)) this.#context.status.storeFailed(failed);
  }

  /** Passes a channel on, unless this peer is its original listener. */
  async #passChannelOn({ channelName, channelId }: Source, topicId: number): Promise<PassedOn> {
    return channelName.endsWith(`:${this.#context.sender.name}`) ? "kept" : await this.#passOn(channelId, topicId);
  }

  /**
   * Decompresses a payload. The setting `maxMessageBytes` limits received messages only: a stored message is handled
   * whatever its size, as an uncompressed one is.
   */
  #decompressed(
    { payload, fromWire }: IncomingMessage,
    { compression, uncompressedBytes }: NonNullable<IncomingMessage["encoding"]>,
  ): Promise<Uint8Array> {
    const maxBytes = fromWire ? this.#context.settings.maxMessageBytes : protocolConstants.maxStoredMessageBytes;
    return decompress(payload, compression, uncompressedBytes, maxBytes);
  }

  #addToBatch(
    handling: HandlingSettings,
    batch: BatchHandling,
    link: HandledLink,
    turn: HandledTurn,
    topic: string,
    payload: Uint8Array,
  ): HandlerResult | Promise<HandlerResult> {
    let value: unknown;
    try {
      value = this.#handlers.decode(topic, turn.running.headers, payload);
    } catch (error) {
      return this.#failed(link.source, turn.running, topic, turn.attempts, error);
    }
    let queue = this.#batches.get(batch);
    if (queue === undefined) {
      queue = new BatchQueue(batch.settings, (messages) => this.#handle(topic, handling, messages));
      if (!this.#mayDelayBatches) queue.stopWaiting();
      this.#batches.set(batch, queue);
    }
    return queue.add({ link, turn, payload, value }, payload.length, () => link.onJoined(turn));
  }

  /**
   * Calls a handler that is transactional or a batch handler. Never rejects.
   *
   * @returns the results; a single message always has one
   */
  async #handle(topic: string, handling: HandlingSettings, messages: readonly ListedMessage[]): Promise<Results> {
    const isGone = ({ link, turn }: ListedMessage): boolean => link.isClosed || this.isCancelled(turn.running);
    if (messages.some(isGone)) return messages.map((one) => (isGone(one) ? retryLater : undefined));
    // Nor the parts of a batch that was cut off.
    if (this.#isAborted) return messages.map(() => cutOff);
    // Since the messages have joined the batch.
    if (this.#handlers.isPaused(topic)) return messages.map(() => retryLater);
    const { batch, transactional, timeoutMs } = handling;
    const cancellation = new Cancellation();
    // Errors of messages that the handler has marked, by index.
    const errors = new Map<number, unknown>();
    /** Results of messages that must not begin, by index. */
    const withheld = new Map<number, HandlerResult>();
    const call = async (client?: Transaction): Promise<TransactionEnd> => {
      const beginnings = messages.map(({ link, turn }) => link.begin(turn));
      for (const [index, begins] of beginnings.entries()) {
        if (begins === undefined) continue;
        const { link, turn } = messages[index]!;
        const result = (await begins) ?? this.#overtakenBy(link, turn.running);
        if (result !== undefined) withheld.set(index, result);
      }
      if (withheld.size > 0) return "rollBack";
      if (this.#stopReason !== undefined) cancellation.stop(this.#stopReason);
      const { reply } = this.#handlers;
      const views = messages.map(
        ({ link, turn, payload }) =>
          new MessageView(reply, link.source, turn.running, topic, payload, turn.attempts, client, cancellation),
      );
      this.#handlers.countsOf(topic).attempts += messages.length;
      const startedAt = performance.now();
      const mark = (index: number, error: unknown): void => void errors.set(index, error);
      const values = messages.map(({ value }) => value);
      const returned =
        batch === undefined
          ? this.#handlers.handle(this.#handlers.get(topic), views[0]!)
          : batch.handle(views, values, mark);
      // A handler that exceeds its timeout must not keep writing after the rollback: its connection is closed.
      const end = client && (() => endClient(client));
      const pending = { messages: messages.map(({ turn }) => turn.running), end };
      const value = await this.#withTimeout(startedAt, returned, cancellation, topic, timeoutMs, pending);
      if (value === retryLater) return "rollBack";
      keepResults(messages, batch === undefined ? [value] : value, performance.now() - startedAt, errors);
      return errors.size > 0 ? "rollBack" : "commit";
    };
    const span = this.#startSpanOf(topic, messages);
    let result: HandlerResult | undefined;
    try {
      if (transactional) {
        // Messages of a batch continue their own traces, unless they have the same one.
        const trace = messages.length === 1 && span !== undefined ? span.context : sharedTrace(messages.map(traceOf));
        const inTransaction = () => this.#inTransaction(topic, handling, messages, call, trace);
        const repeated = () => this.#repeatingConflicts(errors, inTransaction);
        result = await inSpan(span, repeated, () => errors.values().next().value);
      } else {
        await inSpan(span, call);
        result = done;
      }
    } catch (error) {
      // A batch that is wanted later is not handled again in parts.
      if (messages.length === 1 || error instanceof RetryAfter)
        for (const index of messages.keys()) if (!errors.has(index)) errors.set(index, error);
    }
    if (withheld.size > 0) return messages.map((_, index) => withheld.get(index));
    if (messages.length === 1) result ??= retryLater;
    return messages.map(({ link, turn }, index) => {
      if (!errors.has(index)) return result;
      if (this.isCancelled(turn.running)) return retryLater;
      return this.#failed(link.source, turn.running, topic, turn.attempts, errors.get(index));
    });
  }

  /**
   * Calls a handler again after a deadlock or a serialization failure, at most {@link mostConflicts} times, as part of the same
   * attempt. Nothing of it is committed, and the delays differ, so that the same ones do not meet again.
   */
  async #repeatingConflicts<Result>(errors: Map<number, unknown>, run: () => Promise<Result>): Promise<Result> {
    for (let conflicts = 1; ; conflicts += 1) {
      try {
        return await run();
      } catch (error) {
        if (conflicts > mostConflicts || !conflictCodes.has(postgresErrorOf(error).code)) throw error;
        this.#context.logger.debug(
          { err: error, conflicts },
          "a transaction was in conflict with others; it is repeated",
        );
      }
      errors.clear();
      await delay(Math.random() * Math.min(conflictDelayMs * 2 ** conflicts, maxConflictDelayMs));
    }
  }

  /**
   * Calls a handler in a transaction that also marks the messages as handled.
   *
   * @param trace context of what the handler enqueues from SQL
   * @returns the result of every message; undefined if they are handled again, alone or with fewer others
   * @throws the error of the handler
   */
  async #inTransaction(
    topic: string,
    { batch }: HandlingSettings,
    messages: readonly ListedMessage[],
    call: (client: Transaction) => Promise<TransactionEnd>,
    trace: TraceContext | undefined,
  ): Promise<HandlerResult | undefined> {
    const { store, lease, status, nameLost } = this.#context;
    const [{ link, turn }] = messages as [ListedMessage];
    const thrown: { error?: unknown } = {};
    let state = "waiting" as "waiting" | "called" | "done";
    const hasCancelled = (): boolean =>
      messages.some(({ turn }) => this.isCancelled(turn.running) || this.#cutOff.has(turn.running));
    // The call may have waited for a connection until the peer had stopped, the topic was paused, or the handler was removed
    // or replaced.
    const isObsolete = (): boolean =>
      messages.some((one) => one.link.isClosed) ||
      this.#isAborted ||
      hasCancelled() ||
      this.#handlers.isPaused(topic) ||
      (batch === undefined && !(this.#handlers.serves(topic) && this.#changeLimit(link, turn)));
    const handler = async (client: Transaction): Promise<TransactionEnd> => {
      if (isObsolete()) return "rollBack";
      state = "called";
      try {
        const end = await call(client);
        if (end === "commit" && hasCancelled()) return "rollBack";
        if (end === "commit") state = "done";
        return end;
      } catch (error) {
        thrown.error = error;
        throw error;
      }
    };
    const completions = messages.flatMap((one) => one.link.completionOf(one.turn) ?? []);
    try {
      // The lease may be renewed on another server while the handler runs; its writes belong to the current epoch.
      const { name, epoch } = lease;
      const origin = this.#originOf(topic, trace);
      const outcome = await store.handleInTransaction({ name, epoch }, completions, handler, origin);
      if (outcome === "committed") return marked;
      if (outcome === "committedByHandler") {
        const error = new HawserError("handler_failed", committedByHandler);
        const result = { errorCode: error.code, errorMessage: error.message };
        for (const one of messages) this.#reportFailure(one.link.source, topic, one.turn.attempts, result, error);
        return marked;
      }
      if (outcome === "rolledBack") return undefined;
      if (messages.every((one) => one.link.isClosed)) return retryLater;
      if (outcome === "fenced") nameLost("the store rejected a transaction");
      else if (messages.length > 1) return undefined;
      else if (outcome === "duplicate") return marked;
      else link.onNotOwned();
      return retryLater;
    } catch (error) {
      if (hasCancelled()) return undefined;
      if ("error" in thrown && Object.is(error, thrown.error)) throw error;
      // At-most-once messages are not retried, because the effects of the handler may be committed.
      if (state !== "waiting" && completions.length === 0) throw error;
      // Postgres rejects the commit because of the handler: a swallowed SQL error, a deferred constraint, a missing
      // privilege.
      if (state === "done" && isHandlersFault(error)) throw error;
      const failure = asHawserError(error);
      status.storeFailed(failure);
      if (state === "waiting" || outcomeOf(failure.cause) !== "unknown") return retryLater;
      const result = sessionEnded(failure.message);
      for (const one of messages) this.#reportFailure(one.link.source, topic, one.turn.attempts, result, failure);
      return result;
    }
  }

  #originOf(topic: string, trace: TraceContext | undefined) {
    return { trace, party: `${this.#context.lease.name}:${topic}` };
  }

  #startSpanOf(topic: string, messages: readonly ListedMessage[]): OperationSpan | undefined {
    if (tracer === undefined) return undefined;
    const running = messages.map(({ turn }) => turn.running);
    return startHandling("process", this.#context, topic, running, messages[0]!.turn.attempts);
  }

  /** Result of a failed call. Reports the failure as a status, unless the handler wants the message again. */
  #failed(source: Source, { headers }: IncomingMessage, topic: string, attempt: number, error: unknown): HandlerResult {
    const result = failed(error, headers === undefined ? Infinity : expiresAt(headers));
    if (this.#isAborted && result.kind === "failed" && result.delayMs === undefined) return cutOff;
    if (result.kind !== "deferred") this.#reportFailure(source, topic, attempt, result, error);
    return result;
  }

  #reportFailure(
    { senderName: peer }: Source,
    topic: string,
    attempt: number,
    { errorCode: code, errorMessage: message }: { readonly errorCode: string; readonly errorMessage: string },
    error: unknown,
  ): void {
    this.#context.status.report({ kind: "attempt_failed", topic, peer, attempt, code, message, error });
  }

  /**
   * Waits for the handler, at most `timeoutMs`; the connection of its transaction is closed after that.
   *
   * @param startedAt start of the handler, whose duration is measured unless it returned synchronously; undefined for
   * requests, which are not measured
   * @throws HawserError `handler_failed` on timeout
   */
  async #withTimeout(
    startedAt: number | undefined,
    returned: unknown,
    cancellation: Cancellation,
    topic: string,
    timeoutMs: number | undefined,
    pending: PendingHandler,
  ): Promise<unknown> {
    this.#pendingHandlers.set(cancellation, pending);
    try {
      if (timeoutMs === undefined) return await returned;
      const onTimeout = (): HawserError => {
        void pending.end?.();
        const error = new HawserError("handler_failed", `the handler did not complete within ${timeoutMs} ms`);
        cancellation.abort(error);
        return error;
      };
      return await inTime(timeoutMs, onTimeout, async () => await returned);
    } finally {
      this.#pendingHandlers.delete(cancellation);
      if (startedAt !== undefined && isThenable(returned)) this.#handlers.tookMs(topic, performance.now() - startedAt);
    }
  }
}

/** Policy of a handler for a message, whose headers may name a number of attempts of its own. */
function withAttempts(retry: RetryPolicy, headers: Headers | undefined): RetryPolicy {
  const given = headers === undefined ? undefined : headerValue(headers, protocolConstants.messageAttemptsHeader);
  if (given === undefined) return retry;
  const attempts = Number(given);
  if (!(Number.isInteger(attempts) && attempts >= 1 && attempts <= outboxConstants.maxAttempts)) return retry;
  return { attempts, delayMs: (after) => retry.delayMs(after) };
}

/** Last checked headers without a time to live. */
let lastWithoutExpiry: Headers | undefined;

/** Time in ms since a message with these headers expired; 0 or negative if it has not expired. */
function expiredMs(headers: Headers): number {
  if (headers === lastWithoutExpiry) return 0;
  const until = expiresAt(headers);
  if (until !== Infinity) return Date.now() - until;
  lastWithoutExpiry = headers;
  return 0;
}

/** Time in ms since 1970 at which a message with these headers expires; Infinity if it does not. */
function expiresAt(headers: Headers): number {
  return Number(headerValue(headers, protocolConstants.messageExpiresHeader) ?? Infinity);
}

/** True if the handler ended its transaction itself, or left it in a state that Postgres does not commit. */
function isHandlersFault(error: unknown): boolean {
  return (error instanceof HawserError && error.code === "handler_failed") || isRefusedForGood(error);
}

/** True if the value is a promise or another thenable. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return (
    (typeof value === "object" || typeof value === "function") &&
    value !== null &&
    typeof (value as { then?: unknown }).then === "function"
  );
}

/**
 * Sets what is kept of messages without an error.
 *
 * @param returned list with the result of each message
 * @param errors gets an error for each message whose result cannot be kept
 */
function keepResults(
  messages: readonly ListedMessage[],
  returned: unknown,
  durationMs: number,
  errors: Map<number, unknown>,
): void {
  for (const [index, { turn }] of messages.entries()) {
    const { kept } = turn.running;
    if (kept === undefined || errors.has(index)) continue;
    try {
      kept.returned(Array.isArray(returned) ? returned[index] : undefined, durationMs);
    } catch (error) {
      errors.set(index, error);
    }
  }
}

function traceOf({ turn }: ListedMessage): TraceContext | undefined {
  return traceContextOf(turn.running.headers ?? []);
}

function endClient(client: Transaction): Promise<void> {
  return (client as Transaction & { end(): Promise<void> }).end().catch(() => undefined);
}
