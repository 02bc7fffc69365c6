/**
 * Calls of the user's handlers. Prepares the topic name, the uncompressed payload and the transaction of a call, and
 * converts its outcome to a {@link HandlerResult} for the channel.
 */
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import {
  ConcurrencyLimit,
  type HandlerResult,
  type Headers,
  headerValue,
  type IncomingMessage,
  type RetryPolicy,
} from "../channel/index.js";
import { errorMessageOf, errorTable, HawserError } from "../errors/index.js";
import { outcomeOf } from "../postgres/index.js";
import {
  inSpan,
  inTime,
  nothingThrown,
  type OperationSpan,
  rpcErrorIn,
  sharedTrace,
  type TraceContext,
  traceContextOf,
  tracer,
} from "../runtime/index.js";
import { type HandledMessage, isRefusedForGood, isTransientFailure, type Transaction } from "../store/index.js";
import { decompress } from "../wire/index.js";
import { BatchQueue } from "./batch-queue.js";
import { Cancellation } from "./cancellation.js";
import { asHawserError, type PeerContext } from "./context.js";
import type { HandledCounts } from "./counters.js";
import { pairsOfFrame } from "./frame-headers.js";
import type { BatchHandling, HandlingSettings } from "./handling-settings.js";
import type { IncomingRequest } from "./incoming-request.js";
import { MessageView, type Source } from "./message.js";
import { postponed } from "./message-stream.js";
import { answerOf, type RequestAnswer } from "./request-answer.js";
import { startHandling } from "./spans.js";
import type { RequestHandler, TopicHandlers } from "./topic-handlers.js";

/** Message that is in its handler. */
export interface HandledTurn {
  readonly running: IncomingMessage;
  /** Number of its starts, with this one. */
  readonly attempts: number;
}

/** Message whose handler is called, with its link. */
interface HandlerCall {
  readonly link: HandledLink;
  readonly turn: HandledTurn;
  readonly view: MessageView;
}

/** Message of a batch, with the decoded value for the batch handler. */
interface BatchedCall extends HandlerCall {
  readonly value: unknown;
}

/**
 * Errors for topics that the peer does not serve. A set of known objects, because the properties of values that
 * handlers throw cannot be trusted.
 */
const notServed = new WeakSet<object>();

function isNotServed(error: unknown): error is HawserError {
  return notServed.has(error as object);
}

/**
 * Result of passing a channel on: it moves to a listener that serves the topic, it stays because there is none, or this
 * peer does not own it.
 */
export type PassedOn = "moved" | "kept" | "notOwned";

/** Passes a channel on to a listener that serves the topic. @throws HawserError `store_failed` (as a rejection) */
export type PassOn = (channelId: number, topicId: number) => Promise<PassedOn>;

/** Thrown to roll back a transaction without a failure. */
const rolledBack = Symbol("rolled back");

/** Link that received a message. */
export interface HandledLink {
  readonly source: Source;
  readonly isClosed: boolean;
  /** True if the link gives messages of topics back that the peer does not serve any more. */
  readonly givesBack: boolean;
  /** What a transaction writes that completes the message; undefined for an at-most-once message. */
  completionOf(turn: HandledTurn): HandledMessage | undefined;
  /** True if the message ended its process or its handler's session as often as it may be tried. */
  isExhausted(turn: HandledTurn): boolean;
  /**
   * Moves a running message to its present limit, because its handler was replaced.
   *
   * @returns false if that limit is full: the message must be postponed
   */
  changeLimit(turn: HandledTurn): boolean;
  /** Called after a transaction was refused, because the message or its channel belongs to another listener. */
  onNotOwned(): void;
  /** Frees the slot of a message that waits in a batch: batches run outside of `concurrency`. */
  onJoined(turn: HandledTurn): void;
}

/** Deferred result of a message whose handler returned a promise or threw. */
export type Unfinished = (
  link: HandledLink,
  turn: HandledTurn,
  startedAt: number,
) => HandlerResult | Promise<HandlerResult>;

/** Cache of topic names by id. */
class TopicNames {
  readonly #names = new Map<number, string>();
  /** Topics of the queue. */
  readonly #ids = new Map<string, number>();
  readonly #ofQueue = new Map<number, string>();
  /** Running queries, which all messages of a topic share. */
  readonly #lookUps = new Map<number, Promise<string | undefined>>();

  readonly #store: PeerContext["store"];

  constructor(store: PeerContext["store"]) {
    this.#store = store;
  }

  /** Id of a topic of the queue, whose rows have names: below zero, and valid in this process alone. */
  idOf(name: string): number {
    let id = this.#ids.get(name);
    if (id === undefined) {
      id = -1 - this.#ids.size;
      this.#ids.set(name, id);
      this.#ofQueue.set(id, name);
    }
    return id;
  }

  /** Cached name of a topic. */
  known(topicId: number): string | undefined {
    return topicId < 0 ? this.#ofQueue.get(topicId) : this.#names.get(topicId);
  }

  /**
   * Name of a topic; undefined if the id is not in the catalog. @throws HawserError `store_failed` (as a rejection)
   */
  of(topicId: number): string | Promise<string | undefined> {
    const known = this.known(topicId);
    if (known !== undefined) return known;
    let lookUp = this.#lookUps.get(topicId);
    if (lookUp === undefined) {
      lookUp = this.#lookUp(topicId).finally(() => this.#lookUps.delete(topicId));
      this.#lookUps.set(topicId, lookUp);
    }
    return lookUp;
  }

  /** Clears the cache, because keys differ between databases. */
  clear(): void {
    this.#names.clear();
    this.#lookUps.clear();
  }

  async #lookUp(topicId: number): Promise<string | undefined> {
    const name = await this.#store.topicOfId(topicId);
    if (name !== undefined) this.#names.set(topicId, name);
    return name;
  }
}

const done: HandlerResult = { kind: "done" };
const marked: HandlerResult = { kind: "done", isMarked: true };
const retryLater: HandlerResult = { kind: "postponed" };

export class HandlerCalls {
  readonly topics: TopicNames;
  readonly #context: PeerContext;
  readonly #handlers: TopicHandlers;
  readonly #passOn: PassOn;
  /** Batch queues by batch handler. */
  readonly #batches = new Map<BatchHandling, BatchQueue<BatchedCall>>();
  /** Cancellations of handlers whose promise is pending. */
  readonly #pendingHandlers = new Set<Cancellation>();
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

  /** Aborts the signals of all running message handlers. */
  abort(reason: HawserError): void {
    for (const cancellation of this.#pendingHandlers) cancellation.abort(reason);
  }

  /** Starts incomplete batches from now on without waiting for further messages. */
  stopWaiting(): void {
    this.#mayDelayBatches = false;
    for (const queue of this.#batches.values()) queue.stopWaiting();
  }

  /**
   * Counts of a topic; the common counts of topics without a label if it has no handler, or its name is not known yet.
   */
  countsOf(topicId: number): HandledCounts {
    return this.#handlers.countsOf(this.topics.known(topicId));
  }

  /** Counts messages that have arrived. */
  received(topicId: number, messages: number): void {
    const topic = this.topics.of(topicId);
    if (typeof topic === "string") {
      this.#handlers.countsOf(topic).received += messages;
      return;
    }
    const count = (name?: string): void => {
      this.#handlers.countsOf(name).received += messages;
    };
    topic.then(count, () => count());
  }

  retryOf({ topicId, headers }: IncomingMessage): RetryPolicy {
    return this.#handlers.handlingOf(this.topics.known(topicId), headers).retry;
  }

  /** Limit under which a message starts. */
  limitOf(topicId: number, headers: Headers | undefined): ConcurrencyLimit | undefined {
    if (!this.#handlers.hasLimits) return undefined;
    const topic = this.topics.known(topicId);
    return topic === undefined ? this.#unknownTopics : this.#handlers.handlingOf(topic, headers).limit;
  }

  /** Limit under which a request starts. */
  limitOfRequest({ topicId }: IncomingRequest): ConcurrencyLimit | undefined {
    if (!this.#handlers.hasLimits) return undefined;
    const topic = this.topics.known(topicId);
    return topic === undefined ? this.#unknownTopics : this.#handlers.requestsOf(topic)?.settings.limit;
  }

  /** Starts the handler. Returns a promise, which never rejects, unless the handler finished synchronously. */
  start(link: HandledLink, turn: HandledTurn): HandlerResult | Promise<HandlerResult> {
    const { running: message, attempts } = turn;
    const { topicId, headers, encoding, fault } = message;
    const isPlain = encoding === undefined && fault === undefined && !link.isExhausted(turn);
    const topic = isPlain && this.topicToCall(topicId, headers);
    if (!topic) return this.#startAfterLookup(link, turn);
    const startedAt = performance.now();
    this.#handlers.countsOf(topic).attempts += 1;
    return this.call(link.source, message, topic, attempts)?.(link, turn, startedAt) ?? done;
  }

  /**
   * Topic of an uncompressed message if {@link call} alone can handle it: its handler is neither transactional nor a
   * batch handler, and its time to live has not ended.
   */
  topicToCall(topicId: number, headers: Headers | undefined): string | undefined {
    const topic = this.topics.known(topicId);
    if (topic === undefined || !this.#handlers.serves(topic)) return undefined;
    if (headers !== undefined && expiredMs(headers) > 0) return undefined;
    const { batch, transactional } = this.#handlers.handlingOf(topic, headers);
    return transactional || batch !== undefined ? undefined : topic;
  }

  /**
   * Calls a handler that is neither transactional nor a batch handler. @returns undefined if the message is complete,
   * otherwise a function that returns its result
   */
  call(source: Source, message: IncomingMessage, topic: string, attempt: number): Unfinished | undefined {
    const view = new MessageView(this.#handlers.reply, source, message, topic, message.payload, attempt);
    const span = tracer && startHandling("process", this.#context, topic, [message], attempt);
    try {
      const returned = span === undefined ? this.#handlers.handle(view) : span.run(() => this.#handlers.handle(view));
      if (isThenable(returned)) {
        return (link, turn, startedAt) => this.#awaitHandler(link, turn, startedAt, returned, view, span);
      }
      span?.end();
      return undefined;
    } catch (error) {
      span?.end(error ?? nothingThrown);
      return (link, turn) => this.#failed(link, turn, topic, error);
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
  answer(source: Source, request: IncomingRequest, topic: string | undefined): unknown {
    if (topic === undefined) throw new HawserError("unsubscribed", `topic id ${request.topicId} is not in the catalog`);
    const handler = this.#requestHandlerOf(source, request.topicId, topic);
    const span = tracer && startHandling("respond", this.#context, topic, [request], 1);
    if (span !== undefined) {
      const call = async () => answerOf(await this.#answerOf(source, request, topic, handler, span.context), request);
      return inSpan(span, call, ({ headers }) => rpcErrorIn(pairsOfFrame(headers)));
    }
    return this.#answerOf(source, request, topic, handler, undefined);
  }

  /** @param trace context of the span, if there is one */
  #answerOf(
    source: Source,
    request: IncomingRequest,
    topic: string,
    handler: RequestHandler,
    trace: TraceContext | undefined,
  ): unknown {
    return handler.settings.transactional
      ? this.#answerInTransaction(source, request, topic, handler, trace ?? traceContextOf(request.headers ?? []))
      : this.#callFor(source, request, topic, handler, undefined);
  }

  /** @throws HawserError `unsubscribed`, `not_supported` */
  #requestHandlerOf(source: Source, topicId: number, topic: string): RequestHandler {
    try {
      this.#checkServed(topic);
    } catch (error) {
      this.#passChannelOn(source, topicId).catch((err) => {
        this.#context.logger.debug({ err }, "could not look up a listener for the topic of a request");
      });
      throw error;
    }
    const handler = this.#handlers.requestsOf(topic);
    if (handler !== undefined) return handler;
    const { name } = this.#context.sender;
    throw new HawserError(
      "not_supported",
      `"${name}" handles messages of "${topic}" but no requests; set a handler with respond`,
    );
  }

  /** The answer is sent after the transaction has ended: a transaction whose answer cannot be sent must not commit. */
  async #answerInTransaction(
    source: Source,
    request: IncomingRequest,
    topic: string,
    handler: RequestHandler,
    trace: TraceContext | undefined,
  ): Promise<RequestAnswer> {
    let answer: RequestAnswer | undefined;
    try {
      await this.#context.store.runInTransaction(
        async (client) => {
          answer = answerOf(await this.#callFor(source, request, topic, handler, client), request);
          if (answer.rollBack) throw rolledBack;
        },
        this.#originOf(topic, trace),
      );
    } catch (error) {
      if (error !== rolledBack) throw error;
    }
    return answer!;
  }

  /** Calls the handler of a request. Returns a promise unless the handler finished synchronously. */
  #callFor(
    source: Source,
    request: IncomingRequest,
    topic: string,
    handler: RequestHandler,
    client: Transaction | undefined,
  ): unknown {
    request.isStarted = true;
    const { payload } = request;
    const view = new MessageView(this.#handlers.reply, source, request, topic, payload, 1, client, request);
    const returned = handler.handle(view);
    const { timeoutMs } = handler.settings;
    if (timeoutMs === undefined || !isThenable(returned)) return returned;
    return this.#withTimeout(undefined, returned, view, timeoutMs, client && (() => void endClient(client)));
  }

  async #startAfterLookup(link: HandledLink, turn: HandledTurn): Promise<HandlerResult> {
    const { running: message } = turn;
    let plain = message.payload;
    let topic: string | undefined;
    try {
      topic = await this.topics.of(message.topicId);
    } catch (err) {
      this.#lookupFailed(err, "could not look up a topic; its message is postponed");
      return retryLater;
    }
    try {
      if (topic === undefined) {
        return refused("unsubscribed", `topic id ${message.topicId} is not in the catalog`);
      }
      if (message.encoding !== undefined) {
        try {
          plain = await this.#decompressed(message, message.encoding);
        } catch (error) {
          // A retry would fail in the same way, as the payload does not change.
          const { code, message: why } = asHawserError(error);
          if (message.fault === undefined) return refused(code, why);
        }
      }
      if (message.fault !== undefined) return withPlain(refused("invalid_message", message.fault), plain);
      // The handler may have been replaced, and the topic may have been unknown.
      if (!link.changeLimit(turn)) return retryLater;
      this.#checkStart(link, turn, topic);
      const view = new MessageView(this.#handlers.reply, link.source, message, topic, plain, turn.attempts);
      const handling = this.#handlers.handlingOf(topic, message.headers);
      const { batch, transactional } = handling;
      if (batch !== undefined) {
        const value = batch.decode(view);
        const joined = () => link.onJoined(turn);
        const result = await this.#queueOf(handling, batch).add({ link, turn, view, value }, plain.length, joined);
        return withPlain(result, plain);
      }
      if (transactional) {
        const call = ([view]: readonly MessageView[]): unknown => {
          // The handler may have been replaced while the message waited for a connection.
          if (!link.changeLimit(turn)) throw postponed;
          return this.#handlers.handle(view!);
        };
        return withPlain((await this.#inTransaction(handling, [{ link, turn, view }], call)) ?? retryLater, plain);
      }
      this.#handlers.countsOf(topic).attempts += 1;
      await inSpan(startHandling("process", this.#context, topic, [message], turn.attempts), async () =>
        this.#withTimeout(performance.now(), this.#handlers.handle(view), view, handling.timeoutMs),
      );
      return done;
    } catch (error) {
      const failed = isNotServed(error)
        ? await this.#handleUnserved(link, turn, error)
        : this.#failed(link, turn, topic ?? "", error);
      return withPlain(failed, plain);
    }
  }

  /**
   * Passes a channel that was taken over on to a listener that serves the topic, and postpones the message. An
   * at-most-once message cannot be postponed and is dropped; later messages go to the new owner.
   */
  async #handleUnserved(link: HandledLink, { running }: HandledTurn, error: HawserError): Promise<HandlerResult> {
    if (link.givesBack) return retryLater;
    try {
      const passedOn = await this.#passChannelOn(link.source, running.topicId);
      if (link.isClosed) return retryLater;
      // A dead letter of a channel that has another owner could be committed later, if this peer owns the channel again
      // by then.
      if (passedOn === "notOwned") link.onNotOwned();
      return passedOn === "kept" || running.position === undefined ? failure(error) : retryLater;
    } catch (err) {
      this.#lookupFailed(err, "could not look up a listener for a topic; its message is postponed");
      return running.position === undefined ? failure(error) : retryLater;
    }
  }

  /** Reports a look-up that Postgres refuses. One that may succeed soon is only logged. */
  #lookupFailed(err: unknown, message: string): void {
    this.#context.logger.debug({ err }, message);
    const failed = asHawserError(err);
    if (failed.code === "store_failed" && !isTransientFailure(failed))
      this.#context.status.report({ kind: "listener_store_error", message: failed.message, error: failed });
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

  /**
   * Handles a batch, in one transaction if the handler is transactional. Never rejects.
   *
   * @returns final results; messages without a result are handled again. Empty if a batch of several messages failed
   * and the handler marked none
   */
  async #handleBatch(
    handling: HandlingSettings,
    { handle }: BatchHandling,
    called: readonly BatchedCall[],
  ): Promise<ReadonlyMap<BatchedCall, HandlerResult>> {
    const { transactional, timeoutMs } = handling;
    const results = new Map<BatchedCall, HandlerResult>();
    for (const one of called) if (one.link.isClosed) results.set(one, retryLater);
    if (results.size > 0) return results;
    const cancellation = new Cancellation();
    const items = called.map(({ view, ...one }) => ({ ...one, view: view.with(undefined, cancellation) }));
    const failed = new Map<number, unknown>();
    const call = async (views: readonly MessageView[]): Promise<void> => {
      const values = items.map(({ value }) => value);
      await handle(views, values, (index, error) => void failed.set(index, error));
      if (transactional && failed.size > 0) throw rolledBack;
    };
    try {
      if (transactional) {
        const result = await this.#inTransaction(handling, items, call);
        if (result !== undefined) for (const one of called) results.set(one, result);
      } else {
        const views = items.map(({ view }) => view);
        this.#handlers.countsOf(views[0]!.topic).attempts += items.length;
        await inSpan(this.#startSpanOf(called), () =>
          this.#withTimeout(performance.now(), call(views), views[0]!, timeoutMs),
        );
        for (const one of called) results.set(one, done);
      }
    } catch (error) {
      if (called.length === 1 && failed.size === 0) failed.set(0, error);
    }
    for (const [index, error] of failed) {
      const one = called[index]!;
      results.set(one, this.#failed(one.link, one.turn, one.view.topic, error));
    }
    return results;
  }

  /**
   * Handles messages of one topic in a transaction that also marks them as handled.
   *
   * @returns the result of every message; undefined if their results may differ
   * @throws the error of the handler
   */
  async #inTransaction(
    handling: HandlingSettings,
    items: readonly HandlerCall[],
    call: (views: readonly MessageView[]) => unknown,
  ): Promise<HandlerResult | undefined> {
    const span = this.#startSpanOf(items);
    // Messages of a batch continue their own traces, unless they have the same one.
    const trace =
      items.length === 1 && span !== undefined
        ? span.context
        : sharedTrace(items.map(({ turn }) => traceContextOf(turn.running.headers ?? [])));
    if (span === undefined) return await this.#handleInTransaction(handling, items, call, trace);
    try {
      const result = await span.run(() => this.#handleInTransaction(handling, items, call, trace));
      span.end();
      return result;
    } catch (error) {
      span.end(error === postponed ? undefined : (error ?? nothingThrown));
      throw error;
    }
  }

  /** @param trace context of what the handler enqueues from SQL */
  async #handleInTransaction(
    { timeoutMs, retry }: HandlingSettings,
    items: readonly HandlerCall[],
    call: (views: readonly MessageView[]) => unknown,
    trace: TraceContext | undefined,
  ): Promise<HandlerResult | undefined> {
    const { store, lease, status, nameLost } = this.#context;
    const [{ link }] = items as [HandlerCall];
    const thrown: { error?: unknown } = {};
    let isStarted = false;
    let ended = false;
    const handler = async (client: Transaction): Promise<void> => {
      isStarted = true;
      try {
        // The peer may have stopped while the call waited for a connection.
        if (items.some((item) => item.link.isClosed)) throw postponed;
        // A handler that exceeds its timeout must not keep writing after the rollback: its connection is closed.
        const views = items.map(({ view }) => view.with(client));
        this.#handlers.countsOf(views[0]!.topic).attempts += items.length;
        await this.#withTimeout(performance.now(), call(views), views[0]!, timeoutMs, () => void endClient(client));
        ended = true;
      } catch (error) {
        thrown.error = error;
        throw error;
      }
    };
    const completions = items.flatMap(({ link, turn }) => link.completionOf(turn) ?? []);
    try {
      // The lease may be renewed on another server while the handler runs; its writes belong to the current epoch.
      const { name, epoch } = lease;
      const outcome = await store.handleInTransaction(
        { name, epoch },
        completions,
        handler,
        this.#originOf(items[0]!.view.topic, trace),
      );
      if (outcome === "committed") return marked;
      if (items.every((item) => item.link.isClosed)) return retryLater;
      if (outcome === "fenced") nameLost("the store rejected a transaction");
      else if (items.length > 1) return undefined;
      else if (outcome === "duplicate") return marked;
      else link.onNotOwned();
    } catch (error) {
      if ("error" in thrown && Object.is(error, thrown.error)) throw error;
      // At-most-once messages are not retried, because the effects of the handler may be committed.
      if (isStarted && completions.length === 0) throw error;
      // Postgres rejects the commit because of the handler: a swallowed SQL error, a deferred constraint, a missing
      // privilege.
      if (ended && isHandlersFault(error)) throw error;
      const failed = asHawserError(error);
      status.report({ kind: "listener_store_error", message: failed.message, error: failed });
      if (!isStarted || outcomeOf(failed.cause) !== "unknown") return retryLater;
      const result = sessionEnded(retry.attempts, failed.message);
      const report = { code: result.errorCode, message: failed.message, error: failed };
      for (const { link, turn, view } of items) this.#reportFailure(link, turn, view.topic, report);
      return result;
    }
    return retryLater;
  }

  #originOf(topic: string, trace: TraceContext | undefined) {
    return { trace, party: `${this.#context.lease.name}:${topic}` };
  }

  #startSpanOf(items: readonly HandlerCall[]): OperationSpan | undefined {
    if (tracer === undefined) return undefined;
    const [{ turn, view }] = items as [HandlerCall];
    const messages = items.map((item) => item.turn.running);
    return startHandling("process", this.#context, view.topic, messages, turn.attempts);
  }

  #queueOf(handling: HandlingSettings, batch: BatchHandling): BatchQueue<BatchedCall> {
    let queue = this.#batches.get(batch);
    if (queue === undefined) {
      queue = new BatchQueue(batch.settings, (called) => this.#handleBatch(handling, batch, called));
      if (!this.#mayDelayBatches) queue.stopWaiting();
      this.#batches.set(batch, queue);
    }
    return queue;
  }

  /** Result of a failed call. Reports the failure as a status if the handler was started. */
  #failed(link: HandledLink, turn: HandledTurn, topic: string, error: unknown): HandlerResult {
    const result = failure(error);
    if ("errorCode" in result && !notStartedCodes.has(result.errorCode)) {
      this.#reportFailure(link, turn, topic, { code: result.errorCode, message: result.errorMessage, error });
    }
    return result;
  }

  #reportFailure(
    { source }: HandledLink,
    { attempts: attempt }: HandledTurn,
    topic: string,
    failed: { readonly code: string; readonly message: string; readonly error: unknown },
  ): void {
    this.#context.status.report({ kind: "attempt_failed", topic, peer: source.senderName, attempt, ...failed });
  }

  #checkServed(topic: string): void {
    if (this.#handlers.serves(topic)) return;
    const error = this.#handlers.unserved(topic);
    notServed.add(error);
    throw error;
  }

  /** @throws HawserError with the reason if the handler must not be called */
  #checkStart(link: HandledLink, turn: HandledTurn, topic: string): void {
    this.#checkServed(topic);
    const { headers } = turn.running;
    const late = headers === undefined ? 0 : expiredMs(headers);
    if (late > 0) throw new HawserError("expired", `its time to live ended ${late} ms before its handler could start`);
    if (link.isExhausted(turn)) {
      throw new HawserError(
        "handler_crashed",
        `the process or its Postgres session ended while its handler was running, ${this.#handlers.handlingOf(topic, headers).retry.attempts} times`,
      );
    }
  }

  async #awaitHandler(
    link: HandledLink,
    turn: HandledTurn,
    startedAt: number,
    returned: unknown,
    view: MessageView,
    span: OperationSpan | undefined,
  ): Promise<HandlerResult> {
    try {
      await this.#withTimeout(startedAt, returned, view, this.#handlers.handlingOf(view.topic, view.pairs).timeoutMs);
      span?.end();
      return done;
    } catch (error) {
      span?.end(error ?? nothingThrown);
      return this.#failed(link, turn, view.topic, error);
    }
  }

  /**
   * Waits for the handler, at most `timeoutMs`; `onLate` is called after that.
   *
   * @param startedAt start of the handler, whose duration is measured unless it returned synchronously; undefined for
   * requests, which are not measured
   * @throws HawserError `handler_failed` on timeout
   */
  async #withTimeout(
    startedAt: number | undefined,
    returned: unknown,
    { cancellation, topic }: MessageView,
    timeoutMs: number | undefined,
    onLate?: () => void,
  ): Promise<unknown> {
    this.#pendingHandlers.add(cancellation);
    try {
      if (timeoutMs === undefined) return await returned;
      const onTimeout = (): HawserError => {
        onLate?.();
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

/** Last checked headers without a time to live. */
let lastWithoutExpiry: Headers | undefined;

/** Time in ms since a message with these headers expired; 0 or negative if it has not expired. */
function expiredMs(headers: Headers): number {
  if (headers === lastWithoutExpiry) return 0;
  const until = headerValue(headers, protocolConstants.messageExpiresHeader);
  if (until !== undefined) return Date.now() - Number(until);
  lastWithoutExpiry = headers;
  return 0;
}

/** Adds the uncompressed payload to a result that becomes a dead letter. */
function withPlain(result: HandlerResult, plain: Uint8Array): HandlerResult {
  return "errorCode" in result ? { ...result, plain } : result;
}

/** Result that makes the message a dead letter without a retry. */
function refused(errorCode: HawserError["code"], errorMessage: string): HandlerResult {
  return { kind: "refused", errorCode, errorMessage, failedAt: Date.now() };
}

/** Result for a handler whose Postgres session ended: the message itself may be the cause. */
function sessionEnded(maxAttempts: number, how: string): Extract<HandlerResult, { kind: "sessionEnded" }> {
  const errorCode: HawserError["code"] = "handler_crashed";
  const errorMessage = `the Postgres session ended while its handler was running, ${maxAttempts} times: ${how}`;
  return { kind: "sessionEnded", errorCode, errorMessage, failedAt: Date.now() };
}

/** Result for an error that the handler threw, or that replaced the call. */
function failure(error: unknown): HandlerResult {
  if (error === postponed) return retryLater;
  const { code: errorCode, message: errorMessage } = failureOf(error);
  const kind = finalCodes.has(errorCode) ? "refused" : "failed";
  return { kind, errorCode, errorMessage, stack: stackOf(error), failedAt: Date.now() };
}

/**
 * Error codes for which a retry cannot help: the topic has no handler here, the message crashes the process, cannot be
 * decoded or has expired, or the handler rejected it.
 */
const finalCodes: ReadonlySet<string> = new Set([
  "unsubscribed",
  "handler_crashed",
  "invalid_message",
  "rejected",
  "expired",
]);

/** Error codes of messages whose handler was not called. */
const notStartedCodes: ReadonlySet<string> = new Set(["unsubscribed", "handler_crashed", "expired"]);

/** Code and message for an error that the handler threw, or that replaced the call. */
export function failureOf(error: unknown): { readonly code: HawserError["code"]; readonly message: string } {
  try {
    // Another installed version of the package may have codes that this one does not know.
    if (error instanceof HawserError && Object.hasOwn(errorTable, error.code)) {
      return { code: error.code, message: String(error.message) };
    }
    if (error instanceof Error) return { code: "handler_failed", message: `${error.name}: ${error.message}` };
  } catch {
    // Handlers can throw any value, including objects whose properties throw.
  }
  return { code: "handler_failed", message: errorMessageOf(error) };
}

function stackOf(error: unknown): string | undefined {
  try {
    return error instanceof Error && error.stack ? String(error.stack) : undefined;
  } catch {
    return undefined;
  }
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

function endClient(client: Transaction): Promise<void> {
  return (client as Transaction & { end(): Promise<void> }).end().catch(() => undefined);
}
