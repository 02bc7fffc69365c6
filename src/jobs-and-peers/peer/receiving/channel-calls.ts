/**
 * Calls of handlers for messages of channels, and for requests: frames and rows name a topic by an id, payloads may be compressed, and a
 * channel whose topic has no handler here is passed on.
 */
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

/**
 * Result of passing a channel on: it moves to a listener that serves the topic, it stays because there is none, or this
 * peer does not own it.
 */
export type PassedOn = "moved" | "kept" | "notOwned";

/** Passes a channel on to a listener that serves the topic. @throws HawserError `store_failed` (as a rejection) */
export type PassOn = (channelId: number, topicId: number) => Promise<PassedOn>;

/** Listening end of a channel. */
interface ChannelLink extends HandledLink {
  readonly source: Source;
}

export class ChannelCalls {
  readonly topics: TopicNames;
  readonly #context: PeerContext;
  readonly #handlers: TopicHandlers;
  readonly #calls: HandlerCalls;
  readonly #passOn: PassOn;
  /**
   * Limit of messages and requests whose topic name is not known yet. They are looked up one at a time, and each then
   * changes to the limit of its handler, so that no more of them start than that limit allows.
   */
  readonly #unknownTopics = new ConcurrencyLimit(1);

  constructor(context: PeerContext, handlers: TopicHandlers, calls: HandlerCalls, passOn: PassOn) {
    this.#context = context;
    this.#handlers = handlers;
    this.#calls = calls;
    this.#passOn = passOn;
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
      : this.#calls.start(link, turn, messageOf(link.source, turn.running, payload), topic);
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
        plain = await this.#decompressed(running, encoding);
      } catch (error) {
        // A retry would fail in the same way, as the payload does not change.
        const { code, message: why } = asHawserError(error);
        if (fault === undefined) return refused(code, why);
      }
    }
    // The topic may have been unknown, and the handler may have been replaced.
    if (fault === undefined && !changeLimit(turn, this.limitOf(topicId, headers), link)) return retryLater;
    return withPlain(await this.#calls.start(link, turn, messageOf(link.source, running, plain), topic), plain);
  }

  /**
   * Passes a channel that was taken over on to a listener that serves the topic, and postpones the message. An
   * at-most-once message cannot be postponed and is dropped; later messages go to the new owner.
   */
  async unserved(link: ChannelLink, { topicId, position }: IncomingMessage, topic: string): Promise<HandlerResult> {
    const { code, message } = this.#handlers.unserved(topic);
    const unserved = refused(code, message);
    try {
      const passedOn = await this.passChannelOn(link.source, topicId);
      if (link.isClosed) return retryLater;
      // A dead letter of a channel that has another owner could be committed later, if this peer owns the channel again
      // by then.
      if (passedOn === "notOwned") link.onNotOwned();
      return passedOn === "kept" || position === undefined ? unserved : retryLater;
    } catch (err) {
      this.#lookupFailed(err, "could not look up a listener for a topic; its message is postponed");
      return position === undefined ? unserved : retryLater;
    }
  }

  /** Passes a channel on, unless this peer is its original listener. */
  async passChannelOn({ channelName, channelId }: Source, topicId: number): Promise<PassedOn> {
    return channelName.endsWith(`:${this.#context.sender.name}`) ? "kept" : await this.#passOn(channelId, topicId);
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
  #decompressed(
    { payload, fromWire }: IncomingMessage,
    { compression, uncompressedBytes }: NonNullable<IncomingMessage["encoding"]>,
  ): Promise<Uint8Array> {
    const maxBytes = fromWire ? this.#context.settings.maxMessageBytes : protocolConstants.maxStoredMessageBytes;
    return decompress(payload, compression, uncompressedBytes, maxBytes);
  }
}

function messageOf(
  source: Source,
  { position, topicId, headers, key, fromWire, fault }: IncomingMessage,
  payload: Uint8Array,
): ChannelMessage {
  return new ChannelMessage(source, position, topicId, payload, headers, key, fromWire, fault);
}
