import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import type { PoolClient } from "pg";
import { Delivery } from "../../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import { HawserError } from "../../foundation/errors/index.js";
import type { Format, OutputOf, SchemaTopic } from "../../foundation/payloads/index.js";
import { jsonOf, textOf } from "../../foundation/payloads/index.js";
import { Cancellation } from "../../foundation/runtime/index.js";
import { type HandledMessage, type Headers, headerValue, type Origin } from "../channel/index.js";
import {
  type AnyJson,
  type AnyTopics,
  type HeadersInput,
  headerPairsOf,
  type Payload,
  type Sendable,
  withHeader,
} from "../queue/enqueue/index.js";
import type { Transaction } from "../store/index.js";
import { type Content, type MessageHeaders, ReceivedHeaders } from "./content.js";

/** Outcome of an at-least-once send: the listener's handler has completed, or Postgres has committed the message. */
type DurableOutcome = "delivered" | "stored";
/** Outcome of an at-most-once send: written to a connection, or dropped because there was no connection. */
type TransientOutcome = "sent" | "dropped";

/** Result of a send. */
export interface Receipt<Outcome extends DurableOutcome | TransientOutcome = DurableOutcome> {
  readonly outcome: Outcome;
  /** Name of the listener; empty if the message is in the queue, for any listener of its topic. */
  readonly peer: string;
}

/** Receipt of a send whose delivery guarantee is not known at compile time. */
export type AnyReceipt = Receipt<DurableOutcome | TransientOutcome>;

/** Receipt of a send with a delivery guarantee. */
export type ReceiptOf<Guarantee extends DeliveryName> = Receipt<
  Guarantee extends "at-most-once" ? TransientOutcome : DurableOutcome
>;

/**
 * Receipt of a reply that was written in the transaction of a handler. The reply is sent if and only if the transaction
 * commits.
 */
interface EnqueuedReply {
  readonly outcome: "enqueued";
  /** Name of the peer that receives the reply. */
  readonly peer: string;
  /** Id of the reply, as that of {@link enqueue}: {@link cancel} takes it. */
  readonly id: bigint;
}

/** Result of a reply. */
export type ReplyReceipt = AnyReceipt | EnqueuedReply;

/** Options of {@link Peer.send}. */
export interface SendOptions<Guarantee extends DeliveryName = DeliveryName> {
  /** Delivery guarantee. Default: `at-least-once`. */
  readonly delivery?: Guarantee | undefined;
  /** Object of header names with a value or an array of values, or an iterable of `[name, value]` pairs. */
  readonly headers?: HeadersInput | undefined;
  /** Rejects the promise with `aborted` when the signal is aborted; the message itself may still be delivered. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Ordering key: messages of this sender with the same topic and key go to the same listener, which handles them in
   * the order of the sends. Different keys are handled in parallel, up to `concurrency`; messages without a key are
   * handled one after another. Enqueued messages without a key have no order. 1 to 1,024 bytes without control
   * characters.
   */
  readonly key?: string | undefined;
  /**
   * Id of the message. The handler gets it as `message.id` and in the header `message-id`. 1 to 255 bytes without white
   * space.
   */
  readonly messageId?: string | undefined;
  /**
   * Time to live, in milliseconds from the send. If no handler has started by then, the message becomes a dead letter
   * (`expired`), or is dropped if it is at-most-once. Compares the clocks of both machines. Default: no limit.
   */
  readonly ttlMs?: number | undefined;
  /**
   * Schemas only: encoding of the message, Protobuf's `binary` format, or Protobuf's `json` for receivers that need it.
   * Default: `binary`.
   */
  readonly format?: Format | undefined;
}

/** Received message, as a handler gets it. @template Value type that a map of topics has for its payload */
export interface Message<Value = AnyJson> extends Content<Value> {
  /** Topic that the message was sent to. */
  readonly topic: string;
  /** Name of the peer that sent the message or enqueued it with `peer.enqueue`. Undefined if no peer did. */
  readonly sender: string | undefined;
  /** Topic of the {@link sender}, which receives replies. */
  readonly senderTopic: string | undefined;
  /** Database role that enqueued the message, or of a sender whose group had no room for it. Undefined if a listener received it. */
  readonly enqueuedBy: string | undefined;
  readonly headers: MessageHeaders;
  /**
   * Lower bound of the number of attempts, including the current one: 1 for the first attempt, more after the handler
   * failed or the process crashed while it ran. Attempts before the first crash are not counted.
   */
  readonly attempt: number;
  readonly delivery: DeliveryName;
  /**
   * Id of the message. Of an enqueued one it is the id that `enqueue` returned, in decimal, which {@link job} and {@link cancel} take; a
   * `messageId` that was given to `enqueue` is in the header `message-id`. Of one that was sent it is the sender's `messageId`, or else
   * its position in its channel (sender, topic, listener, epoch and number); it is as of an enqueued one if no member of a group had room
   * for it. It stays the same for every attempt, also for a dead
   * letter that is retried. Undefined for a request, and for an at-most-once message without a `messageId`.
   */
  readonly id: string | undefined;
  /**
   * Id of the message that this one answers, if it is a {@link reply}: the `messageId` that was given to `send` or
   * `enqueue`, or else the id that `enqueue` returned, in decimal. It is the header
   * `correlation-id`, which any sender can set. Undefined otherwise.
   */
  readonly correlationId: string | undefined;
  /** Ordering key of the message, if it has one. */
  readonly key: string | undefined;
  /**
   * Signal that is aborted after the handler's `timeoutMs`, when the message is cancelled, and when the peer stops without
   * waiting for the handler any longer. For a request it is also aborted when the sender has stopped waiting: timed out,
   * disconnected or cancelled. Five seconds after the message was cancelled, the connection of a transaction is closed.
   */
  readonly signal: AbortSignal;
  /**
   * Signal that is aborted when the peer begins to stop. The handler then has until the deadline of the stop, `stopTimeoutMs`, at which
   * {@link signal} is aborted and the message is given back, as no attempt. A handler that takes longer can save its progress and
   * throw a `RetryAfter`, so that another process goes on.
   */
  readonly stopping: AbortSignal;
  /**
   * Says how far the handler is, for {@link job}: any value that JSON can carry, of up to 1,024 bytes. At most one value a second is
   * written, and the last one within that second. It is not part of the handler's transaction. Does nothing for a message whose
   * result is not kept.
   *
   * @throws HawserError `invalid_argument` for a value that JSON cannot carry, or a longer one
   */
  progress(value: unknown): void;
  /**
   * Sends a message to the peer that sent this one, under its topic. A transactional handler writes the reply in its
   * transaction (outcome `enqueued`), unless the reply is `at-most-once`.
   *
   * @throws HawserError (as a rejection) `no_listener` if no peer sent or enqueued the message
   */
  reply<Given>(payload: Sendable<Given>, options?: Omit<SendOptions, "format">): Promise<ReplyReceipt>;
}

/** Received message, as a transactional handler gets it. */
export interface TransactionalMessage<Value = AnyJson> extends Message<Value> {
  /**
   * Postgres client with an open transaction. The commit also ends the message, so that all writes through
   * this client happen exactly once. Do not commit, roll back, or keep the client after the handler has ended. A
   * handler that commits or rolls back fails with `handler_failed`, and its own commit stays. Replies and calls of
   * `peer.enqueue` with this client are part of the transaction; other sends are repeated by each attempt. `release`
   * does nothing, so that query builders may call it.
   *
   * @throws HawserError `not_supported` in handlers that are not transactional
   */
  readonly client: PoolClient;
}

/**
 * Message handler. A message is complete when the handler returns or its promise resolves; it is not delivered again.
 * If the result is kept (`keepMs`, `keepResults`), it is the value that the handler returns, as JSON of up to 65,536 bytes; any other
 * value makes the message a dead letter.
 * If the handler throws, the message is retried as `retry` specifies and then becomes a dead letter. A `Reject` makes
 * it a dead letter at once; after a `RetryAfter` it is handled again at a time.
 */
export type Handler = (message: TransactionalMessage) => unknown;

/**
 * Handler of the messages of a destination: gets the message of a topic, and the decoded value and the message of a
 * schema. `message.client` is there unless the compiler knows that the handler is not transactional.
 */
export type HandlerFor<To, Transactional, Topics = AnyTopics> = To extends keyof Topics
  ? (message: MessageFor<Transactional, Topics[To]>) => unknown
  : (value: ValueOf<To>, message: MessageFor<Transactional>) => unknown;

/** Batch handler of the messages of a destination, as {@link HandlerFor}. */
export type BatchHandlerFor<To, Transactional, Topics = AnyTopics> = (
  messages: readonly (To extends keyof Topics ? MessageFor<Transactional, Topics[To]> : ValueOf<To>)[],
  batch: true extends Transactional ? TransactionalBatch : Batch,
) => unknown;

/** Message that a handler gets. */
export type MessageFor<Transactional, Value = AnyJson> = true extends Transactional
  ? TransactionalMessage<Value>
  : Message<Value>;

/** Decoded value that a schema has. */
type ValueOf<To> = To extends DescMessage
  ? MessageShape<To>
  : To extends SchemaTopic<infer Schema>
    ? OutputOf<Schema>
    : never;

/** Messages that one call of a batch handler handles. */
export interface Batch {
  readonly messages: readonly Message[];
  /**
   * Signal that is aborted after the handler's `timeoutMs`, and when the peer stops without waiting for the handler any
   * longer. It is also aborted when a message of a transactional batch is cancelled; the others are handled again then.
   */
  readonly signal: AbortSignal;
  /** Signal that is aborted when the peer begins to stop, as `message.stopping`. */
  readonly stopping: AbortSignal;
  /**
   * Marks one message as failed: it is retried as `retry` specifies, or as a `RetryAfter` says, or becomes a dead letter at
   * once if the error is a `Reject`. The other messages are complete when the handler returns, and are handled again if it throws. With
   * `transactional: true` the transaction is rolled back and the other messages are always handled again: mark all
   * failing messages, then return.
   *
   * @param message one of {@link messages}
   * @throws HawserError `invalid_argument` for any other message, and after the handler has ended
   */
  readonly fail: (message: Message, error: unknown) => void;
}

/** Batch that is handled in one transaction. */
export interface TransactionalBatch extends Batch {
  readonly messages: readonly TransactionalMessage[];
  /** Client of the transaction, the same as that of each message. */
  readonly client: PoolClient;
}

/** Delivery guarantee of a send. */
export type DeliveryName = "at-least-once" | "at-most-once";

/** Wire values of the delivery guarantees. */
export const deliveries: ReadonlyMap<DeliveryName, Delivery> = new Map([
  ["at-least-once", Delivery.AT_LEAST_ONCE],
  ["at-most-once", Delivery.AT_MOST_ONCE],
]);

/**
 * Sends a reply to the origin of a message.
 *
 * @param to undefined if no peer is the origin
 * @param transaction transaction of the handler
 * @param correlationId id that the origin gave to the message, or else the one that its enqueue returned
 */
export type Reply = (
  to: Origin | undefined,
  payload: Payload,
  options: SendOptions | undefined,
  transaction: Transaction | undefined,
  correlationId: string | undefined,
) => Promise<ReplyReceipt>;

const noHeaders = new ReceivedHeaders([]);

/**
 * Message as its handler sees it. A class shares its methods between all messages; an object literal per message would
 * cost more memory.
 */
export class MessageView implements TransactionalMessage {
  readonly topic: string;
  readonly payload: Uint8Array;
  readonly attempt: number;
  readonly #message: HandledMessage;
  readonly #transaction: Transaction | undefined;
  #cancellation: Cancellation | undefined;
  #headers: MessageHeaders | undefined;

  readonly #replyTo: Reply;

  /**
   * @param transaction transaction of the handler, if it has one
   * @param cancellation the request itself for a request, or one for all messages of a list; undefined creates a
   * cancellation on first use
   */
  constructor(
    replyTo: Reply,
    message: HandledMessage,
    topic: string,
    attempt: number,
    transaction?: Transaction,
    cancellation?: Cancellation,
  ) {
    this.#replyTo = replyTo;
    this.#message = message;
    this.topic = topic;
    this.payload = message.payload;
    this.attempt = attempt;
    this.#transaction = transaction;
    this.#cancellation = cancellation;
  }

  /**
   * Cancellation of the handler: aborted on timeout, and when the peer stops without waiting for the handler any
   * longer.
   */
  get cancellation(): Cancellation {
    this.#cancellation ??= new Cancellation();
    return this.#cancellation;
  }

  get senderTopic(): string | undefined {
    return this.#message.sender?.topic;
  }

  get sender(): string | undefined {
    return this.#message.sender?.name;
  }

  get enqueuedBy(): string | undefined {
    return this.#message.enqueuedBy;
  }

  get headers(): MessageHeaders {
    const { pairs } = this;
    this.#headers ??= pairs === undefined ? noHeaders : new ReceivedHeaders(pairs);
    return this.#headers;
  }

  /** Headers as pairs. */
  get pairs(): Headers | undefined {
    return this.#message.headers;
  }

  text(): string {
    return textOf(this.payload);
  }

  json<T>(): T {
    return jsonOf<T>(this.payload);
  }

  get delivery(): DeliveryName {
    return this.#message.isAtMostOnce ? "at-most-once" : "at-least-once";
  }

  get id(): string | undefined {
    return this.#message.messageId;
  }

  get correlationId(): string | undefined {
    return this.headers.get(protocolConstants.correlationIdHeader);
  }

  get key(): string | undefined {
    return this.#message.key;
  }

  get signal(): AbortSignal {
    return this.cancellation.signal;
  }

  get stopping(): AbortSignal {
    return this.cancellation.stopping;
  }

  get client(): PoolClient {
    if (this.#transaction !== undefined) return this.#transaction as PoolClient;
    throw new HawserError(
      "not_supported",
      "message.client needs a transactional handler: handle(topic, { transactional: true }, …)",
    );
  }

  progress(value: unknown): void {
    this.#message.kept?.progress(value);
  }

  reply(payload: Payload, options?: SendOptions): Promise<ReplyReceipt> {
    const { sender, headers, sentId } = this.#message;
    const given = headers && headerValue(headers, protocolConstants.messageIdHeader);
    return this.#replyTo(sender, payload, options, this.#transaction, given ?? sentId);
  }
}

/** Batch as its handler sees it. `fail` gets the index of the failed message. */
export class BatchView implements TransactionalBatch {
  readonly messages: readonly TransactionalMessage[];
  readonly fail: Batch["fail"];
  #hasEnded = false;

  constructor(messages: readonly TransactionalMessage[], fail: (index: number, error: unknown) => void) {
    this.messages = messages;
    this.fail = (message, error) => {
      const index = this.messages.indexOf(message as TransactionalMessage);
      if (index >= 0 && !this.#hasEnded) return fail(index, error);
      const why = index < 0 ? "the message is not part of this batch; give one of batch.messages" : endedBatch;
      throw new HawserError("invalid_argument", `batch.fail with message ${message?.id}: ${why}`);
    };
  }

  get signal(): AbortSignal {
    return this.messages[0]!.signal;
  }

  get stopping(): AbortSignal {
    return this.messages[0]!.stopping;
  }

  get client(): PoolClient {
    return this.messages[0]!.client;
  }

  /** Rejects further calls of {@link fail}: the handler has ended. */
  end(): void {
    this.#hasEnded = true;
  }
}

const endedBatch = "the handler of the batch has ended; call it before the handler returns or its promise resolves";

/** Adds the header that leads back to the message that a reply answers. @param id undefined if nothing names that */
export function withCorrelation(options: SendOptions | undefined, id: string | undefined): SendOptions | undefined {
  if (id === undefined) return options;
  return {
    ...options,
    headers: withHeader(headerPairsOf(options?.headers), protocolConstants.correlationIdHeader, id),
  };
}
