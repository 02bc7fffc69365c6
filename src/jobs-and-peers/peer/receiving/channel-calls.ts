/** Calls of handlers for messages of channels, and for requests: frames and rows name a topic by an id, and payloads may be compressed. */
import { protocolConstants } from "../../../../generated/ts/settings/peer.js";
import { asHawserError } from "../../../foundation/errors/index.js";
import type { HandlerResult, Headers, IncomingMessage, RetryPolicy, StartedMessage } from "../../channel/index.js";
import type { HandledCounts } from "../../handlers/handled-counts.js";
import type { HandledLink } from "../../handlers/handled-link.js";
import type { HandlerCalls } from "../../handlers/handler-call.js";
import { refused, retryLater, withPlain } from "../../handlers/handler-result.js";
import { ConcurrencyLimit, changeLimit } from "../../handlers/limits/concurrency-limit.js";
import type { ServedTopic, TopicHandlers } from "../../handlers/topic-handlers.js";
import { isTransientFailure } from "../../store/index.js";
import { decompress } from "../../wire/index.js";
import type { PeerContext } from "../core/context.js";
import { ChannelMessage, type Source } from "./channel-message.js";
import { TopicNames } from "./topic-names.js";

/** Listening end of a channel. */
interface ChannelLink extends HandledLink {
  readonly source: Source;
}

export class ChannelCalls {
  readonly topics: TopicNames;
  readonly #context: PeerContext;
  readonly #handlers: TopicHandlers;
  readonly #calls: HandlerCalls;
  /**
   * Limit of messages and requests whose topic name is not known yet. They are looked up one at a time, and each then
   * changes to the limit of its handler, so that no more of them start than that limit allows.
   */
  readonly #unknownTopics = new ConcurrencyLimit(1);

  constructor(context: PeerContext, handlers: TopicHandlers, calls: HandlerCalls) {
    this.#context = context;
    this.#handlers = handlers;
    this.#calls = calls;
    this.topics = new TopicNames(context.store);
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
    return this.#handlers.retryOf(this.topics.known(topicId), headers);
  }

  /** True if the topic has a handler here, or its name is not known yet. */
  serves(topicId: number): boolean {
    const topic = this.topics.known(topicId);
    return topic === undefined || this.#handlers.serves(topic);
  }

  /**
   * Whether the queue is to handle a message: its topic has no handler here or is paused, or its handler has a transaction, which ends a row.
   * `topic`: so it is with all messages of the topic.
   */
  leaves({ topicId, headers }: IncomingMessage): false | "message" | "topic" {
    const topic = this.topics.known(topicId);
    if (topic === undefined) return false;
    const handlers = this.#handlers;
    if (!handlers.serves(topic) || handlers.isTransactional(topic)) return "topic";
    return handlers.isPaused(topic) || handlers.handlingOf(topic, headers).transactional ? "message" : false;
  }

  /** Topics of which some messages are handled here. */
  get directTopics(): string[] {
    return this.#handlers.topics.filter((topic) => !this.#handlers.isTransactional(topic));
  }

  /** Limit under which a message starts. */
  limitOf(topicId: number, headers: Headers | undefined): ConcurrencyLimit | undefined {
    if (!this.#handlers.hasLimits) return undefined;
    const topic = this.topics.known(topicId);
    return topic === undefined ? this.#unknownTopics : this.#handlers.limitOf(topic, headers);
  }

  /** Limit under which a request starts. */
  limitOfRequest(topicId: number): ConcurrencyLimit | undefined {
    if (!this.#handlers.hasLimits) return undefined;
    const topic = this.topics.known(topicId);
    return topic === undefined ? this.#unknownTopics : this.#handlers.handlerOf(topic, "requests")?.settings[0]?.limit;
  }

  /** Starts the handler of a message. Returns a promise, which never rejects, unless the result is known at once. */
  start(link: ChannelLink, turn: StartedMessage): HandlerResult | Promise<HandlerResult> {
    const { topicId, payload, encoding } = turn.running;
    const topic = this.topics.known(topicId);
    return topic === undefined || encoding !== undefined
      ? this.#startAfterLookup(link, turn)
      : this.#call(link, turn, topic, payload);
  }

  #call(
    link: ChannelLink,
    turn: StartedMessage,
    topic: string,
    payload: Uint8Array,
  ): HandlerResult | Promise<HandlerResult> {
    const { running } = turn;
    // Since it was accepted, its topic may have become known, or its handler another one.
    if (running.position !== undefined && running.fault === undefined && this.leaves(running) !== false)
      return retryLater;
    return this.#calls.start(link, turn, messageOf(link.source, running, payload), topic);
  }

  /** Starts the handler when the name of the topic is known, and the payload is uncompressed. */
  async #startAfterLookup(link: ChannelLink, turn: StartedMessage): Promise<HandlerResult> {
    const { running } = turn;
    const { topicId, encoding, fault, headers } = running;
    let topic: string | undefined;
    try {
      topic = await this.topics.of(topicId);
    } catch (err) {
      this.#lookupFailed(err, "could not look up a topic; its message is postponed");
      return retryLater;
    }
    if (topic === undefined) return refused("unsubscribed", `topic id ${topicId} is not in the catalog`);
    let plain = running.payload;
    if (encoding !== undefined) {
      try {
        plain = await this.uncompressed(running);
      } catch (error) {
        // A retry would fail in the same way, as the payload does not change.
        const { code, message: why } = asHawserError(error);
        if (fault === undefined) return refused(code, why);
      }
    }
    // The topic may have been unknown, and the handler may have been replaced.
    if (fault === undefined && !changeLimit(turn, this.limitOf(topicId, headers), link)) return retryLater;
    return withPlain(await this.#call(link, turn, topic, plain), plain);
  }

  /** Result of a message of a topic without a handler: others of the topic may have it. */
  unserved({ position }: IncomingMessage, topic: string): HandlerResult {
    const { code, message } = this.#handlers.unserved(topic);
    return position === undefined ? refused(code, message) : retryLater;
  }

  /** Reports a look-up that Postgres refuses. One that may succeed soon is only logged. */
  #lookupFailed(err: unknown, message: string): void {
    this.#context.logger.debug({ err }, message);
    const failed = asHawserError(err);
    if (failed.code === "store_failed" && !isTransientFailure(failed)) this.#context.status.storeFailed(failed);
  }

  /**
   * Decompresses a payload. The setting `maxMessageBytes` limits received messages only: a stored message is handled
   * whatever its size, as an uncompressed one is.
   */
  async uncompressed({ payload, encoding, fromWire }: IncomingMessage): Promise<Uint8Array> {
    if (encoding === undefined) return payload;
    const maxBytes = fromWire ? this.#context.settings.maxMessageBytes : protocolConstants.maxStoredMessageBytes;
    return await decompress(payload, encoding.compression, encoding.uncompressedBytes, maxBytes);
  }
}

function messageOf(
  source: Source,
  { position, topicId, headers, key, fromWire, fault }: IncomingMessage,
  payload: Uint8Array,
): ChannelMessage {
  return new ChannelMessage(source, position, topicId, payload, headers, key, fromWire, fault);
}
