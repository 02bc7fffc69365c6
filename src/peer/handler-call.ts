/**
 * One call of the user's handler: what it needs before it begins (the topic's name, the payload uncompressed, perhaps a
 * transaction), and what its end means to the channel, as a {@link HandlerResult}.
 */
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import {
  type HandlerResult,
  type Headers,
  headerValue,
  type IncomingMessage,
  type ListenerChannel,
  type MessageTurn,
  type RetryPolicy,
} from "../channel/index.js";
import { errorTable, HawserError } from "../errors/index.js";
import { outcomeOf } from "../postgres/index.js";
import { inTime } from "../runtime/index.js";
import { isRefusedForGood, type Transaction } from "../store/index.js";
import { decompress } from "../wire/index.js";
import { BatchQueue } from "./batch-queue.js";
import { Cancellation } from "./cancellation.js";
import { asHawserError, type PeerContext } from "./context.js";
import type { BatchHandling, HandlingSettings } from "./handling-settings.js";
import type { IncomingRequest } from "./incoming-request.js";
import { MessageView, type Source } from "./message.js";
import { answerOf, type RequestAnswer } from "./request-answer.js";
import type { RequestHandler, TopicHandlers } from "./topic-handlers.js";

/** A message whose turn it is, with the link by which it came. */
interface Called {
  readonly link: HandledLink;
  readonly turn: MessageTurn;
  readonly view: MessageView;
}

/** One that waits for others, with what its handler gets of it. */
interface CalledTogether extends Called {
  readonly value: unknown;
}

/** Thrown for a message whose handling does not count: it comes again. */
export const postponed = Symbol("postponed");

/** The errors that say that the peer does not serve a message's topic. What a handler throws cannot be asked what it is. */
const notServed = new WeakSet<object>();

function isNotServed(error: unknown): error is HawserError {
  return notServed.has(error as object);
}

/** Whether a channel goes to another listener, which serves a topic; it stays if there is none. */
export type PassedOn = "goes" | "stays" | "notOwned";

/** Passes a channel on to a listener that serves a topic. @throws HawserError `store_failed` (as a rejection) */
export type PassOn = (connectionKey: number, topicKey: number) => Promise<PassedOn>;

/** Thrown to roll back the transaction of a handler whose answer says so. */
const rolledBack = Symbol("rolled back");

/** The link by which a message came. */
export interface HandledLink {
  readonly channel: ListenerChannel;
  readonly source: Source;
  readonly isClosed: boolean;
  /** The channel belongs to another listener now. */
  onNotOwned(): void;
  /** A message is part of a batch: it takes none of the handlers that run side by side. */
  onJoined(turn: MessageTurn): void;
}

/** The result of a message whose handler has returned a promise, or thrown. */
export type Unfinished = (link: HandledLink, turn: MessageTurn) => HandlerResult | Promise<HandlerResult>;

/** The names of topics by their keys, looked up once each. */
class TopicNames {
  readonly #names = new Map<number, string>();

  readonly #store: PeerContext["store"];

  constructor(store: PeerContext["store"]) {
    this.#store = store;
  }

  /** The name, if it was looked up before. */
  known(topicKey: number): string | undefined {
    return this.#names.get(topicKey);
  }

  /** The name; undefined for a key that the catalog does not have. @throws HawserError `store_failed` (as a rejection) */
  of(topicKey: number): string | Promise<string | undefined> {
    return this.#names.get(topicKey) ?? this.#lookUp(topicKey);
  }

  /** Another database may have other keys. */
  clear(): void {
    this.#names.clear();
  }

  async #lookUp(topicKey: number): Promise<string | undefined> {
    const name = await this.#store.topicOfKey(topicKey);
    if (name !== undefined) this.#names.set(topicKey, name);
    return name;
  }
}

const done: HandlerResult = { kind: "done" };
const marked: HandlerResult = { kind: "done", isMarked: true };
const comesAgain: HandlerResult = { kind: "postponed" };

export class HandlerCalls {
  readonly topics: TopicNames;
  readonly #context: PeerContext;
  readonly #handlers: TopicHandlers;
  readonly #passOn: PassOn;
  /** Of messages that are handled together. */
  readonly #batches = new Map<BatchHandling, BatchQueue<CalledTogether>>();
  /** Of the handlers that have returned a promise, and have not ended. */
  readonly #waitedFor = new Set<Cancellation>();
  /** Messages that are handled together wait for each other. */
  #waits = true;

  constructor(context: PeerContext, handlers: TopicHandlers, passOn: PassOn) {
    this.#context = context;
    this.#handlers = handlers;
    this.#passOn = passOn;
    this.topics = new TopicNames(context.store);
  }

  /** Nobody waits any longer for the handlers of messages that run. */
  abort(reason: HawserError): void {
    for (const cancellation of this.#waitedFor) cancellation.abort(reason);
  }

  /** No message waits for others any longer. */
  stopWaiting(): void {
    this.#waits = false;
    for (const queue of this.#batches.values()) queue.stopWaiting();
  }

  /** How a message is tried again. */
  retryOf({ topicKey, headers }: IncomingMessage): RetryPolicy {
    return this.#handlers.handlingOf(this.topics.known(topicKey), headers).retry;
  }

  /** Starts the handler. A promise (which does not reject) when it did not finish at once. */
  begin(link: HandledLink, turn: MessageTurn): HandlerResult | Promise<HandlerResult> {
    const { running: message, attempts } = turn;
    const { topicKey, headers, encoding } = message;
    const topic = encoding === undefined && !link.channel.isExhausted(turn) && this.topicToCall(topicKey, headers);
    if (!topic) return this.#beginLater(link, turn);
    return this.call(link.source, message, topic, attempts)?.(link, turn) ?? done;
  }

  /** The topic of a message that is not compressed, if its handler may be called by {@link call} alone. */
  topicToCall(topicKey: number, headers: Headers | undefined): string | undefined {
    const topic = this.topics.known(topicKey);
    if (topic === undefined || !this.#handlers.serves(topic)) return undefined;
    if (headers !== undefined && lateMs(headers) > 0) return undefined;
    const { batch, transactional } = this.#handlers.handlingOf(topic, headers);
    return transactional || batch !== undefined ? undefined : topic;
  }

  /** Calls the handler. @returns undefined if the message is done, else what becomes of it */
  call(source: Source, message: IncomingMessage, topic: string, attempt: number): Unfinished | undefined {
    const view = new MessageView(this.#handlers.reply, source, message, topic, message.payload, attempt);
    try {
      const returned = this.#handlers.handle(view);
      return isThenable(returned) ? (link, turn) => this.#await(link, turn, returned, view) : undefined;
    } catch (error) {
      return (link, turn) => this.#failed(link, turn, topic, error);
    }
  }

  /**
   * Calls the handler for a request.
   *
   * @returns what the handler has returned, a {@link RequestAnswer} made of that, or a promise of either
   * @throws what the handler or `answerOf` has thrown (`begun` is set), or why the handler was not called, at once or as a
   * rejection
   */
  answer(source: Source, request: IncomingRequest): unknown {
    const topic = this.topics.of(request.topicKey);
    if (typeof topic !== "string") return this.#answerLater(source, request, topic);
    const handler = this.#requestHandlerOf(source, request.topicKey, topic);
    return handler.settings.transactional
      ? this.#answerInTransaction(source, request, topic, handler)
      : this.#callFor(source, request, topic, handler, undefined);
  }

  /** @throws HawserError `unsubscribed`, `not_supported` */
  #requestHandlerOf(source: Source, topicKey: number, topic: string): RequestHandler {
    try {
      this.#checkServed(topic);
    } catch (error) {
      this.#passesOn(source, topicKey).catch((err) => {
        this.#context.logger.debug({ err }, "could not look for who serves the topic of a request");
      });
      throw error;
    }
    const handler = this.#handlers.requestsOf(topic);
    if (handler !== undefined) return handler;
    const { name } = this.#context.sender;
    throw new HawserError(
      "not_supported",
      `"${name}" handles messages of "${topic}", and answers no requests; use respond`,
    );
  }

  async #answerLater(source: Source, request: IncomingRequest, topic: Promise<string | undefined>): Promise<unknown> {
    if ((await topic) !== undefined) return await this.answer(source, request);
    throw new HawserError("unsubscribed", `topic key ${request.topicKey} is not in the catalog`);
  }

  /** The answer leaves when the handler's transaction has ended: an answer that cannot be sent must not commit it. */
  async #answerInTransaction(
    source: Source,
    request: IncomingRequest,
    topic: string,
    handler: RequestHandler,
  ): Promise<RequestAnswer> {
    let answer: RequestAnswer | undefined;
    try {
      await this.#context.store.runInTransaction(async (client) => {
        answer = answerOf(await this.#callFor(source, request, topic, handler, client), request);
        if (answer.rollBack) throw rolledBack;
      });
    } catch (error) {
      if (error !== rolledBack) throw error;
    }
    return answer!;
  }

  /** Calls the handler for a request. A promise if it did not finish at once. */
  #callFor(
    source: Source,
    request: IncomingRequest,
    topic: string,
    handler: RequestHandler,
    client: Transaction | undefined,
  ): unknown {
    request.begun = true;
    const { payload } = request;
    const view = new MessageView(this.#handlers.reply, source, request, topic, payload, 1, client, request);
    const returned = handler.handle(view);
    const { timeoutMs } = handler.settings;
    if (timeoutMs === undefined || !isThenable(returned)) return returned;
    return this.#bounded(returned, view, timeoutMs, client && (() => void endClient(client)));
  }

  async #beginLater(link: HandledLink, turn: MessageTurn): Promise<HandlerResult> {
    const { running: message } = turn;
    let plain = message.payload;
    let topic: string | undefined;
    try {
      topic = await this.topics.of(message.topicKey);
    } catch (err) {
      this.#context.logger.debug({ err }, "could not look up a topic; its message waits");
      return comesAgain;
    }
    try {
      if (topic === undefined) {
        return refused("unsubscribed", `topic key ${message.topicKey} is not in the catalog`);
      }
      if (message.encoding !== undefined) {
        try {
          plain = await this.#plainOf(message, message.encoding);
        } catch (error) {
          // It will not be another payload the next time.
          const { code, message: why } = asHawserError(error);
          return refused(code, why);
        }
      }
      this.#mayBegin(link, turn, topic);
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
        const call = ([view]: readonly MessageView[]): unknown => this.#handlers.handle(view!);
        return withPlain((await this.#inTransaction(handling, [{ link, turn, view }], call)) ?? comesAgain, plain);
      }
      await this.#bounded(this.#handlers.handle(view), view, handling.timeoutMs);
      return done;
    } catch (error) {
      const failed = isNotServed(error)
        ? await this.#notServed(link, turn, error)
        : this.#failed(link, turn, topic ?? "", error);
      return withPlain(failed, plain);
    }
  }

  /**
   * A channel that was taken over goes on to who serves the topic, and the message with it. Nothing keeps an at-most-once
   * message for that, but those behind it arrive.
   */
  async #notServed(link: HandledLink, { running }: MessageTurn, error: HawserError): Promise<HandlerResult> {
    try {
      const passedOn = await this.#passesOn(link.source, running.topicKey);
      if (link.isClosed) return comesAgain;
      // No dead letter of a channel of before, which this peer may have again when that is committed.
      if (passedOn === "notOwned") link.onNotOwned();
      return passedOn === "stays" || running.position === undefined ? failure(error) : comesAgain;
    } catch (err) {
      this.#context.logger.debug({ err }, "could not look for who serves a topic; its message waits");
      return running.position === undefined ? failure(error) : comesAgain;
    }
  }

  /** A channel that was made for this peer stays. */
  async #passesOn({ composite, connectionKey }: Source, topicKey: number): Promise<PassedOn> {
    return composite.endsWith(`:${this.#context.sender.name}`) ? "stays" : await this.#passOn(connectionKey, topicKey);
  }

  /** The limit is one of the wire: a stored message is handled whatever its length, as a plain one is. */
  #plainOf(
    { payload, fromWire }: IncomingMessage,
    { compression, uncompressedBytes }: NonNullable<IncomingMessage["encoding"]>,
  ): Promise<Uint8Array> {
    const maxBytes = fromWire ? this.#context.settings.maxMessageBytes : protocolConstants.maxStoredMessageBytes;
    return decompress(payload, compression, uncompressedBytes, maxBytes);
  }

  /**
   * Hands messages to their handler together, in one transaction where it is transactional. Never rejects.
   *
   * @returns the results that are certain; all others are to be handled again. Empty for several of which one has failed
   */
  async #handleTogether(
    handling: HandlingSettings,
    { handle }: BatchHandling,
    called: readonly CalledTogether[],
  ): Promise<ReadonlyMap<CalledTogether, HandlerResult>> {
    const { transactional, timeoutMs } = handling;
    const results = new Map<CalledTogether, HandlerResult>();
    for (const one of called) if (one.link.isClosed) results.set(one, comesAgain);
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
        await this.#bounded(call(views), views[0]!, timeoutMs);
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
   * Handles messages of one topic in a transaction that also marks them as done.
   *
   * @returns the result of each of them; undefined if it may be another one for some than for others
   * @throws what the handler has thrown
   */
  async #inTransaction(
    { timeoutMs, retry }: HandlingSettings,
    items: readonly Called[],
    call: (views: readonly MessageView[]) => unknown,
  ): Promise<HandlerResult | undefined> {
    const { store, lease, status, nameLost } = this.#context;
    const [{ link }] = items as [Called];
    const thrown: { error?: unknown } = {};
    let begun = false;
    let ended = false;
    const handler = async (client: Transaction): Promise<void> => {
      begun = true;
      try {
        // What waited for a connection is not begun any more when the peer has stopped.
        if (items.some((item) => item.link.isClosed)) throw postponed;
        // A handler that is late must not go on writing outside of its transaction: its connection is closed.
        const views = items.map(({ view }) => view.with(client));
        await this.#bounded(call(views), views[0]!, timeoutMs, () => void endClient(client));
        ended = true;
      } catch (error) {
        thrown.error = error;
        throw error;
      }
    };
    const numbered = items.flatMap(({ link, turn }) => {
      const { position } = turn.running;
      const { connectionKey } = link.source;
      return position === undefined
        ? []
        : { connectionKey, ...position, mayBeDone: turn.attempts > 1, isParked: turn.place.parked !== undefined };
    });
    try {
      // The lease may be renewed on another server while the handler runs; what it does belongs to the epoch of now.
      const { name, epoch } = lease;
      const outcome = await store.handleInTransaction({ name, epoch }, numbered, handler);
      if (outcome === "committed") return marked;
      if (items.every((item) => item.link.isClosed)) return comesAgain;
      if (outcome === "fenced") nameLost("a transaction was refused");
      else if (items.length > 1) return undefined;
      else if (outcome === "duplicate") return marked;
      else link.onNotOwned();
    } catch (error) {
      if ("error" in thrown && Object.is(error, thrown.error)) throw error;
      // At most once: whatever it did may be committed.
      if (begun && numbered.length === 0) throw error;
      // Postgres refuses what the handler left behind: a swallowed error, a deferred constraint, a lost right.
      if (ended && isHandlersFault(error)) throw error;
      const failed = asHawserError(error);
      status.tell({ kind: "listener_store_error", message: failed.message, error: failed });
      if (!begun || outcomeOf(failed.cause) !== "unknown") return comesAgain;
      const result = sessionEnded(retry.attempts, failed.message);
      const told = { code: result.errorCode, message: failed.message, error: failed };
      for (const { link, turn, view } of items) this.#tellFailed(link, turn, view.topic, told);
      return result;
    }
    return comesAgain;
  }

  #queueOf(handling: HandlingSettings, batch: BatchHandling): BatchQueue<CalledTogether> {
    let queue = this.#batches.get(batch);
    if (queue === undefined) {
      queue = new BatchQueue(batch.settings, (called) => this.#handleTogether(handling, batch, called));
      if (!this.#waits) queue.stopWaiting();
      this.#batches.set(batch, queue);
    }
    return queue;
  }

  /** What the handler has thrown, or what was thrown in its place. */
  #failed(link: HandledLink, turn: MessageTurn, topic: string, error: unknown): HandlerResult {
    const result = failure(error);
    if ("errorCode" in result && !notBegun.has(result.errorCode)) {
      this.#tellFailed(link, turn, topic, { code: result.errorCode, message: result.errorMessage, error });
    }
    return result;
  }

  #tellFailed(
    { source }: HandledLink,
    { attempts: attempt }: MessageTurn,
    topic: string,
    failed: { readonly code: string; readonly message: string; readonly error: unknown },
  ): void {
    this.#context.status.tell({ kind: "attempt_failed", topic, peer: source.senderName, attempt, ...failed });
  }

  #checkServed(topic: string): void {
    if (this.#handlers.serves(topic)) return;
    const error = this.#handlers.unserved(topic);
    notServed.add(error);
    throw error;
  }

  /** @throws HawserError that says why the handler is not to be called */
  #mayBegin({ channel }: HandledLink, turn: MessageTurn, topic: string): void {
    this.#checkServed(topic);
    const { headers } = turn.running;
    const late = headers === undefined ? 0 : lateMs(headers);
    if (late > 0) throw new HawserError("expired", `its time to live had passed ${late} ms before its handler began`);
    if (channel.isExhausted(turn)) {
      throw new HawserError(
        "handler_crashed",
        `the process, or its session with Postgres, ended in the middle of its handler ${this.#handlers.handlingOf(topic, headers).retry.attempts} times`,
      );
    }
  }

  async #await(link: HandledLink, turn: MessageTurn, returned: unknown, view: MessageView): Promise<HandlerResult> {
    try {
      await this.#bounded(returned, view, this.#handlers.handlingOf(view.topic, view.pairs).timeoutMs);
      return done;
    } catch (error) {
      return this.#failed(link, turn, view.topic, error);
    }
  }

  /** Waits for the handler, as long as it may take; `onLate` is called then. @throws HawserError `handler_failed` */
  async #bounded(
    returned: unknown,
    { cancellation }: MessageView,
    timeoutMs: number | undefined,
    onLate?: () => void,
  ): Promise<unknown> {
    this.#waitedFor.add(cancellation);
    try {
      if (timeoutMs === undefined) return await returned;
      const late = (): HawserError => {
        onLate?.();
        const error = new HawserError("handler_failed", `the handler took longer than ${timeoutMs} ms`);
        cancellation.abort(error);
        return error;
      };
      return await inTime(timeoutMs, late, async () => await returned);
    } finally {
      this.#waitedFor.delete(cancellation);
    }
  }
}

/** The headers that were looked at last, if they have no time to live. */
let lasting: Headers | undefined;

/** Milliseconds since a message with these headers expired; 0 or less: it has not. */
function lateMs(headers: Headers): number {
  if (headers === lasting) return 0;
  const until = headerValue(headers, protocolConstants.messageExpiresHeader);
  if (until !== undefined) return Date.now() - Number(until);
  lasting = headers;
  return 0;
}

/** A dead letter has the payload uncompressed. */
function withPlain(result: HandlerResult, plain: Uint8Array): HandlerResult {
  return "errorCode" in result ? { ...result, plain } : result;
}

/** The message is not to be tried again. */
function refused(errorCode: HawserError["code"], errorMessage: string): HandlerResult {
  return { kind: "refused", errorCode, errorMessage, failedAt: Date.now() };
}

/** The handler's session with Postgres has ended: perhaps the message ends it. */
function sessionEnded(maxAttempts: number, how: string): Extract<HandlerResult, { kind: "sessionEnded" }> {
  const errorCode: HawserError["code"] = "handler_crashed";
  const errorMessage = `the session with Postgres ended in the middle of its handler ${maxAttempts} times: ${how}`;
  return { kind: "sessionEnded", errorCode, errorMessage, failedAt: Date.now() };
}

/** What was thrown in place of handling, or by the handler. */
function failure(error: unknown): HandlerResult {
  if (error === postponed) return comesAgain;
  const { code: errorCode, message: errorMessage } = failureOf(error);
  const kind = isFinal.has(errorCode) ? "refused" : "failed";
  return { kind, errorCode, errorMessage, stack: stackOf(error), failedAt: Date.now() };
}

/**
 * Trying again would not help: nobody here serves the topic, the message ends the process or is none of its type, or the
 * handler says so.
 */
const isFinal: ReadonlySet<string> = new Set([
  "unsubscribed",
  "handler_crashed",
  "invalid_message",
  "rejected",
  "expired",
]);

/** The handler was not called for a message with one of these. */
const notBegun: ReadonlySet<string> = new Set(["unsubscribed", "handler_crashed", "expired"]);

/** What a handler has thrown, or what was thrown in its place. */
export function failureOf(error: unknown): { readonly code: HawserError["code"]; readonly message: string } {
  try {
    // Another copy of the package may have codes that are not known here.
    if (error instanceof HawserError && Object.hasOwn(errorTable, error.code)) {
      return { code: error.code, message: String(error.message) };
    }
  } catch {
    // Any value can be thrown, also one that throws when it is looked at.
  }
  return { code: "handler_failed", message: messageOf(error) };
}

function messageOf(error: unknown): string {
  try {
    return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  } catch {
    return "a value that cannot be shown";
  }
}

function stackOf(error: unknown): string | undefined {
  try {
    return error instanceof Error && error.stack ? String(error.stack) : undefined;
  } catch {
    return undefined;
  }
}

/** The handler has ended its transaction, or left what Postgres refuses to commit. */
function isHandlersFault(error: unknown): boolean {
  return (error instanceof HawserError && error.code === "handler_failed") || isRefusedForGood(error);
}

/** Whether a value is a promise, or behaves as one. */
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
