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
} from "../channel/index.js";
import { errorTable, HawserError, PeerError } from "../errors/index.js";
import { outcomeOf } from "../postgres/index.js";
import { inTime } from "../runtime/index.js";
import { type Channel, isRefusedForGood, type Transaction } from "../store/index.js";
import { decompress } from "../wire/index.js";
import { asHawserError, type PeerContext } from "./context.js";
import { pairsOfFrame } from "./frame-headers.js";
import type { IncomingRequest } from "./incoming-request.js";

/** Where a message comes from. */
export type Source = Pick<Channel, "connectionKey" | "composite" | "senderName" | "sourceTopic">;

/** A message whose turn has come, with its payload uncompressed. */
export interface DueMessage {
  readonly message: IncomingMessage;
  /** The topic that it was sent to. */
  readonly to: string;
  readonly source: Source;
  readonly payload: Uint8Array;
  /** From 1. */
  readonly attempt: number;
  /** The handler's client of Postgres; undefined unless handlers are transactional. */
  readonly client: Transaction | undefined;
  /** Set if the sender waits for what the handler returns. */
  readonly request: IncomingRequest | undefined;
}

/** The user's handler. What it returns may be a promise. */
export type Handle = (due: DueMessage) => unknown;

/** Thrown for a message whose handling does not count: it comes again. */
export const postponed = Symbol("postponed");

/** The errors that say that the peer does not serve a message's topic. What a handler throws cannot be asked what it is. */
const notServed = new WeakSet<object>();

function isNotServed(error: unknown): error is PeerError {
  return notServed.has(error as object);
}

/** Whether a channel goes to another listener, which serves a topic; it stays if there is none. */
export type PassedOn = "goes" | "stays" | "notOwned";

/** Passes a channel on to a listener that serves a topic. @throws StoreError `store_failed` (as a rejection) */
export type PassOn = (connectionKey: number, topicKey: number) => Promise<PassedOn>;

/** Thrown to roll back the transaction of a handler whose answer says so. */
const rolledBack = Symbol("rolled back");

/** The answer to a request. */
export interface RequestAnswer {
  /** What the handler wrote in its transaction is rolled back before the answer leaves. */
  readonly rollBack: boolean;
}

/** The link by which a message came. */
export interface HandledLink {
  readonly channel: ListenerChannel;
  readonly source: Source;
  readonly isClosed: boolean;
  /** The channel belongs to another listener now. */
  onNotOwned(): void;
}

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

  /** The name; undefined for a key that the catalog does not have. @throws StoreError `store_failed` (as a rejection) */
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
const comesAgain: HandlerResult = { kind: "postponed" };

export class HandlerCalls {
  readonly topics: TopicNames;
  readonly #context: PeerContext;
  readonly #serves: (topic: string) => boolean;
  readonly #handle: Handle;
  readonly #passOn: PassOn;

  /** @param serves whether the peer serves a topic now */
  constructor(context: PeerContext, serves: (topic: string) => boolean, handle: Handle, passOn: PassOn) {
    this.#context = context;
    this.#serves = serves;
    this.#handle = handle;
    this.#passOn = passOn;
    this.topics = new TopicNames(context.store);
  }

  /** Starts the handler. A promise (which does not reject) when it did not finish at once. */
  begin(link: HandledLink, turn: MessageTurn): HandlerResult | Promise<HandlerResult> {
    const { running: message } = turn;
    const topic = this.topics.of(message.topicKey);
    if (typeof topic !== "string" || message.encoding !== undefined || this.#context.settings.transactional) {
      return this.#beginLater(link, turn, topic);
    }
    try {
      const returned = this.#call(link, turn, topic, message.payload, undefined);
      return isThenable(returned) ? this.#await(returned) : done;
    } catch (error) {
      return isNotServed(error) ? this.#notServed(link, turn, error) : failure(error);
    }
  }

  /**
   * The answer to a request, or a promise of it.
   *
   * @param answerOf makes the answer of what the handler has returned, or throws: then the handler has failed
   * @throws what the handler or `answerOf` has thrown (`begun` is set), or why the handler was not called, at once or as a
   * rejection
   */
  answer<T extends RequestAnswer>(
    source: Source,
    request: IncomingRequest,
    answerOf: (returned: unknown) => T,
  ): T | Promise<T> {
    const topic = this.topics.of(request.frame.topicKey);
    if (typeof topic !== "string") return this.#answerLater(source, request, answerOf, topic);
    if (this.#context.settings.transactional) return this.#answerInTransaction(source, request, answerOf, topic);
    const returned = this.#callFor(source, request, topic, undefined);
    return isThenable(returned) ? Promise.resolve(returned).then(answerOf) : answerOf(returned);
  }

  async #answerLater<T extends RequestAnswer>(
    source: Source,
    request: IncomingRequest,
    answerOf: (returned: unknown) => T,
    topic: Promise<string | undefined> | undefined,
  ): Promise<T> {
    if ((await topic) !== undefined) return await this.answer(source, request, answerOf);
    throw new PeerError("unsubscribed", `topic key ${request.frame.topicKey} is not in the catalog`);
  }

  /** The answer leaves when the handler's transaction has ended: an answer that cannot be sent must not commit it. */
  async #answerInTransaction<T extends RequestAnswer>(
    source: Source,
    request: IncomingRequest,
    answerOf: (returned: unknown) => T,
    topic: string,
  ): Promise<T> {
    let answer: T | undefined;
    try {
      await this.#context.store.runInTransaction(async (client) => {
        answer = answerOf(await this.#callFor(source, request, topic, client));
        if (answer.rollBack) throw rolledBack;
      });
    } catch (error) {
      if (error !== rolledBack) throw error;
    }
    return answer!;
  }

  #callFor(source: Source, request: IncomingRequest, topic: string, client: Transaction | undefined): unknown {
    const { payload, headers, topicKey } = request.frame;
    try {
      this.#checkServed(topic);
    } catch (error) {
      this.#passesOn(source, topicKey).catch((err) => {
        this.#context.logger.debug({ err }, "could not look for who serves the topic of a request");
      });
      throw error;
    }
    const message: IncomingMessage = {
      position: undefined,
      topicKey,
      payload,
      encoding: undefined,
      headers: headers.length === 0 ? undefined : pairsOfFrame(headers),
      key: undefined,
      fromWire: true,
    };
    request.begun = true;
    const returned = this.#handle({ message, to: topic, source, payload, attempt: 1, client, request });
    if (!isThenable(returned)) return returned;
    return this.#bounded(returned, () => client && void endClient(client));
  }

  async #beginLater(
    link: HandledLink,
    turn: MessageTurn,
    topicFound: string | Promise<string | undefined>,
  ): Promise<HandlerResult> {
    const { running: message } = turn;
    let plain = message.payload;
    let topic: string | undefined;
    try {
      topic = await topicFound;
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
      const handled = this.#context.settings.transactional
        ? this.#inTransaction(link, turn, topic, plain)
        : this.#await(this.#call(link, turn, topic, plain, undefined));
      return withPlain(await handled, plain);
    } catch (error) {
      const result = isNotServed(error) ? await this.#notServed(link, turn, error) : failure(error);
      return withPlain(result, plain);
    }
  }

  /**
   * A channel that was taken over goes on to who serves the topic, and the message with it. Nothing keeps an at-most-once
   * message for that, but those behind it arrive.
   */
  async #notServed(link: HandledLink, { running }: MessageTurn, error: PeerError): Promise<HandlerResult> {
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

  /** Handles a message in a transaction that also moves the cursor. */
  async #inTransaction(
    link: HandledLink,
    turn: MessageTurn,
    topic: string,
    payload: Uint8Array,
  ): Promise<HandlerResult> {
    const { running: message } = turn;
    const { store, lease, status, settings, nameLost } = this.#context;
    this.#mayBegin(link, turn, topic);
    const thrown: { error?: unknown } = {};
    let begun = false;
    let ended = false;
    const handler = async (client: Transaction): Promise<void> => {
      begun = true;
      try {
        // A handler that is late must not go on writing outside of its transaction: its connection is closed.
        await this.#bounded(this.#call(link, turn, topic, payload, client), () => void endClient(client));
        ended = true;
      } catch (error) {
        thrown.error = error;
        throw error;
      }
    };
    try {
      if (message.position === undefined) {
        await store.runInTransaction(handler);
        return done;
      }
      const place = { connectionKey: link.source.connectionKey, ...message.position };
      // The lease may be renewed on another server while the handler runs; what it does belongs to the epoch of now.
      const { name, epoch } = lease;
      const outcome = await store.handleInTransaction({ name, epoch }, place, handler);
      if (link.isClosed) return comesAgain;
      if (outcome === "fenced") nameLost("a transaction was refused");
      else if (outcome === "notOwned") link.onNotOwned();
      else return { kind: "committed" };
    } catch (error) {
      if ("error" in thrown && Object.is(error, thrown.error)) throw error;
      // At most once: whatever it did may be committed.
      if (begun && message.position === undefined) throw error;
      // Postgres refuses what the handler left behind: a swallowed error, a deferred constraint, a lost right.
      if (ended && isHandlersFault(error)) throw error;
      const failed = asHawserError(error);
      status.tell({ kind: "listener_store_error", message: failed.message, error: failed });
      if (begun && outcomeOf(failed.cause) === "unknown") return sessionEnded(settings.maxAttempts, failed.message);
    }
    return comesAgain;
  }

  #call(
    link: HandledLink,
    turn: MessageTurn,
    topic: string,
    payload: Uint8Array,
    client: Transaction | undefined,
  ): unknown {
    this.#mayBegin(link, turn, topic);
    const { source } = link;
    const { running: message, attempts: attempt } = turn;
    return this.#handle({ message, to: topic, source, payload, attempt, client, request: undefined });
  }

  #checkServed(topic: string): void {
    const { sender } = this.#context;
    if (this.#serves(topic)) return;
    const error = new PeerError("unsubscribed", `"${sender.name}" does not subscribe to "${topic}"`);
    notServed.add(error);
    throw error;
  }

  #mayBegin({ channel }: HandledLink, turn: MessageTurn, topic: string): void {
    const { settings } = this.#context;
    this.#checkServed(topic);
    const { headers } = turn.running;
    if (headers !== undefined) checkExpiry(headers);
    if (channel.isExhausted(turn)) {
      throw new PeerError(
        "handler_crashed",
        `the process, or its session with Postgres, ended in the middle of its handler ${settings.maxAttempts} times`,
      );
    }
  }

  async #await(returned: unknown): Promise<HandlerResult> {
    try {
      await this.#bounded(returned);
      return done;
    } catch (error) {
      return failure(error);
    }
  }

  /** Waits for the handler, at most `handlerTimeoutMs`; `onLate` is called then. @throws PeerError `handler_failed` */
  async #bounded(returned: unknown, onLate?: () => void): Promise<unknown> {
    const { handlerTimeoutMs } = this.#context.settings;
    if (handlerTimeoutMs === undefined) return await returned;
    const late = (): PeerError => {
      onLate?.();
      return new PeerError("handler_failed", `the handler took longer than ${handlerTimeoutMs} ms`);
    };
    return await inTime(handlerTimeoutMs, late, async () => await returned);
  }
}

/** The headers that were looked at last, if they have no time to live. */
let lasting: Headers | undefined;

/** @throws PeerError `expired` if nobody needs a message with these headers any more */
function checkExpiry(headers: Headers): void {
  if (headers === lasting) return;
  const until = headerValue(headers, protocolConstants.messageExpiresHeader);
  if (until === undefined) {
    lasting = headers;
    return;
  }
  const lateMs = Date.now() - Number(until);
  if (lateMs > 0) throw new PeerError("expired", `its time to live had passed ${lateMs} ms before its handler began`);
}

/** A dead letter has the payload uncompressed. */
function withPlain(result: HandlerResult, plain: Uint8Array): HandlerResult {
  return "errorCode" in result ? { ...result, plain } : result;
}

/** The message is not to be tried again. */
function refused(errorCode: HawserError["code"], errorMessage: string): HandlerResult {
  return { kind: "refused", errorCode, errorMessage };
}

/** The handler's session with Postgres has ended: perhaps the message ends it. */
function sessionEnded(maxAttempts: number, how: string): HandlerResult {
  const errorCode: HawserError["code"] = "handler_crashed";
  const errorMessage = `the session with Postgres ended in the middle of its handler ${maxAttempts} times: ${how}`;
  return { kind: "sessionEnded", errorCode, errorMessage };
}

/** What was thrown in place of handling, or by the handler. */
function failure(error: unknown): HandlerResult {
  if (error === postponed) return comesAgain;
  const { code, message } = failureOf(error);
  return isFinal.has(code) ? refused(code, message) : { kind: "failed", errorCode: code, errorMessage: message };
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

/** What a handler has thrown, or what was thrown in its place. */
export function failureOf(error: unknown): { readonly code: HawserError["code"]; readonly message: string } {
  try {
    // Another copy of the package may have codes that are not known here.
    if (HawserError.is(error) && Object.hasOwn(errorTable, error.code)) {
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

/** The handler has ended its transaction, or left what Postgres refuses to commit. */
function isHandlersFault(error: unknown): boolean {
  return (HawserError.is(error) && error.code === "handler_failed") || isRefusedForGood(error);
}

/** Whether a value is a promise, or behaves as one. */
function isThenable(value: unknown): value is PromiseLike<unknown> {
  return (
    (typeof value === "object" || typeof value === "function") &&
    value !== null &&
    typeof (value as { then?: unknown }).then === "function"
  );
}

function endClient(client: Transaction): Promise<void> {
  return (client as Transaction & { end(): Promise<void> }).end().catch(() => undefined);
}
