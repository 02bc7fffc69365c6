import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import type { PoolClient } from "pg";
import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { type Headers, headerValue, type IncomingMessage } from "../channel/index.js";
import { HawserError } from "../errors/index.js";
import type { Channel, Transaction } from "../store/index.js";
import type { Format } from "../typed/index.js";
import { jsonOf, textOf } from "../typed/index.js";
import { Delivery } from "../wire/index.js";
import { Cancellation } from "./cancellation.js";
import { type Content, type HeadersInput, type MessageHeaders, ReceivedHeaders } from "./content.js";

/** Outcome of an at-least-once send: the listener has handled the message, or Postgres has surely committed it. */
type DurableOutcome = "delivered" | "stored";
/** Outcome of an at-most-once send: the message was handed to a connection, or dropped because there was none. */
export type TransientOutcome = "sent" | "dropped";

/** Outcome of a send. */
export interface Receipt<Outcome extends DurableOutcome | TransientOutcome = DurableOutcome> {
  readonly outcome: Outcome;
  /** The listener's name. */
  readonly peer: string;
}

/** Receipt of a send whose delivery is not known to the compiler. */
export type AnyReceipt = Receipt<DurableOutcome | TransientOutcome>;

/** Receipt of a reply that was written in the transaction of a handler. The reply is sent if, and only if, that commits. */
interface EnqueuedReply {
  readonly outcome: "enqueued";
  /** Name of the peer that gets the reply. */
  readonly peer: string;
  /** Number of the message in the outbox. */
  readonly id: bigint;
}

/** Outcome of a reply. */
export type ReplyReceipt = AnyReceipt | EnqueuedReply;

/** A payload: text becomes UTF-8; an object that is no `Uint8Array` travels as JSON, with the header `content-type`. */
export type Payload = string | Uint8Array | object;

/** A subject of NATS as the destination of a message. */
export interface NatsSubject {
  /** Words joined by `.`, without wildcards. 1 to 1,024 bytes. */
  readonly subject: string;
  /** A JetStream stream gets the message, and keeps it once. Default false: core NATS gets it, at least once. */
  readonly stream?: boolean | undefined;
  /** With `stream`: the JetStream domain. Default: the option `domain` of the NATS server. */
  readonly domain?: string | undefined;
}

/** Options of `enqueueBatch`. */
export interface EnqueueBatchOptions {
  /** Names with values, or lists of values; or pairs of name and value. */
  readonly headers?: HeadersInput | undefined;
  /**
   * Messages of one database role with the same destination and key keep the order of their commits. 1 to 1,024 bytes without
   * control characters. A transaction that enqueues with a key locks it to its end.
   */
  readonly key?: string | undefined;
  /** The message is handed over, or published, then or a little later. Until then {@link cancel} takes it back. */
  readonly deliverAt?: Date | undefined;
  /** For a topic: each listener, and each group of listeners, gets a copy. Default false: one listener gets the message. */
  readonly all?: boolean | undefined;
  /** For a topic: as of a send; of a message that is due later it counts from then. */
  readonly ttlMs?: number | undefined;
  /** For a schema whose option has a topic and a subject: which of them. */
  readonly via?: "peers" | "nats" | undefined;
  /** For a schema: default `binary`, that of Protobuf. */
  readonly format?: Format | undefined;
}

/** Options of `enqueue`. */
export interface EnqueueOptions extends EnqueueBatchOptions {
  /**
   * For a topic: the handler finds it as `message.id`, and in the header `message-id`. For a stream: of two messages with one
   * id it keeps one. 1 to 255 bytes without white space.
   */
  readonly messageId?: string | undefined;
}

/** When a schedule enqueues messages, which, and for whom. */
export interface ScheduleOptions<Desc extends DescMessage = DescMessage>
  extends Pick<EnqueueOptions, "headers" | "key" | "all" | "via" | "format"> {
  /** Five fields (minute, hour, day of the month, month, day of the week), or six with the second before them. */
  readonly cron: string;
  /** A topic, a subject of NATS, or a schema, whose option says where its messages go. */
  readonly to: string | NatsSubject | Desc;
  /** As of `enqueue`, and at most 1 MiB. Default: an empty object. */
  readonly payload?: Payload | MessageInitShape<Desc> | undefined;
  /** By whose clock the expression goes, such as `Europe/Berlin`. Default: UTC. */
  readonly timezone?: string | undefined;
  /**
   * Occurrences to enqueue afterwards, of those for which no process ran within ten seconds: the last `one`, `all`, or `none`.
   * Default: `one`.
   */
  readonly missed?: "one" | "all" | "none" | undefined;
}

/** Options of a send. */
export interface SendOptions {
  /** Default `at-least-once`. */
  readonly delivery?: DeliveryName | undefined;
  /** Names with values, or lists of values; or pairs of name and value. */
  readonly headers?: HeadersInput | undefined;
  /** Ends the wait with `aborted`; the message itself may still arrive. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Messages with the same topic and key go to the same listener, which handles them in the order of the sends. It handles
   * different keys of this sender at the same time, up to `concurrency`, and messages without a key one after another; but those
   * without a key that are enqueued have no order. 1 to 1,024 bytes without control characters.
   */
  readonly key?: string | undefined;
  /** The handler finds it as `message.id`, and in the header `message-id`. 1 to 255 bytes without white space. */
  readonly messageId?: string | undefined;
  /**
   * Time to live: a handler may begin with the message so many milliseconds from now, by the clocks of both machines. After that
   * it is a dead letter (`expired`), and an at-most-once message is dropped.
   */
  readonly ttlMs?: number | undefined;
  /** For a schema: default `binary`, that of Protobuf. `json` is the JSON of Protobuf, for receivers that need it. */
  readonly format?: Format | undefined;
}

/** A message for a handler. */
export interface Message extends Content {
  /** The topic that the message was sent to. */
  readonly topic: string;
  /** Name of the peer that sent the message, or enqueued it by `peer.enqueue`. Undefined if no peer did. */
  readonly sender: string | undefined;
  /** The topic of the {@link sender}, which gets the replies. */
  readonly senderTopic: string | undefined;
  /** The database role that enqueued the message. Undefined if it was sent. */
  readonly enqueuedBy: string | undefined;
  readonly headers: MessageHeaders;
  /**
   * At least how many times it was begun, this time included: 1 for the first attempt, more after the handler failed or
   * the process ended in the middle of it. Starts from before the first unclean exit are not counted.
   */
  readonly attempt: number;
  readonly delivery: DeliveryName;
  /**
   * Its id: the one that the sender gave, else its place in its channel (sender, topic, listener, epoch and number). It stays
   * the same however often the message comes, also as a dead letter that is tried again. Undefined for a request, and for an
   * at-most-once message that was sent without one.
   */
  readonly id: string | undefined;
  /** Its key, if it has one. */
  readonly key: string | undefined;
  /**
   * Aborted when the handler's time (`timeoutMs`) is up, and when the peer stops and waits no longer for the handler; of a
   * request also when the sender waits no more, because its time has passed, it has gone or it has cancelled.
   */
  readonly signal: AbortSignal;
  /**
   * Sends to the very peer that sent this message, under its topic. A reply of a transactional handler is written in the
   * handler's transaction (`enqueued`), unless it is `at-most-once`.
   *
   * @throws HawserError (as a rejection) `no_listener` if no peer sent or enqueued the message
   */
  reply(payload: Payload, options?: Omit<SendOptions, "format">): Promise<ReplyReceipt>;
}

/** A message for a transactional handler. */
export interface TransactionalMessage extends Message {
  /**
   * The client of a transaction that is committed together with the mark that the message is done, so that what the handler
   * writes through the client happens exactly once. Neither commit nor roll back: a handler that does has failed
   * (`handler_failed`), and what it had committed stays. Keep nothing of the client after the handler's end. Replies are part
   * of the transaction, and so is what `peer.enqueue` writes with the client; what is sent meanwhile is sent again by each
   * attempt.
   *
   * @throws HawserError `not_supported` for other handlers
   */
  readonly client: PoolClient;
}

/**
 * Handles a message. When it returns, or its promise resolves, the message is done: it will not come again. When it
 * throws, it is tried again as `retry` says; then the message is a dead letter. A `Reject` makes it a dead letter at once.
 */
export type Handler = (message: TransactionalMessage) => unknown;

/** Messages that are handled together. */
export interface Batch {
  readonly messages: readonly Message[];
  /** Aborted when the handler's time is up, and when the peer stops and waits no longer for the handler. */
  readonly signal: AbortSignal;
  /**
   * Marks a message as failed: it is tried again as `retry` says, and becomes a dead letter at once if the error is a `Reject`.
   * The others are done when the handler ends well. If it throws beside, they are handled again. With `transactional: true`
   * they are handled again in any case, since the transaction is rolled back: return as soon as all that fail are named.
   *
   * @param message one of {@link messages}
   * @throws HawserError `invalid_argument` for any other, and when the handler has ended
   */
  readonly fail: (message: Message, error: unknown) => void;
}

/** The same where the messages are handled in one transaction. */
export interface TransactionalBatch extends Batch {
  readonly messages: readonly TransactionalMessage[];
  /** The client of the transaction, which is that of each message. */
  readonly client: PoolClient;
}

/** An answer of `respond` with a payload, headers, or both. */
export interface AnswerToSend {
  readonly payload?: Payload | undefined;
  /** Names with values, or lists of values; or pairs of name and value. */
  readonly headers?: HeadersInput | undefined;
  /**
   * True: the transaction of the handler is rolled back before the answer leaves. Default false: it is committed before.
   */
  readonly rollBack?: boolean | undefined;
}

/** Options of a request. */
export interface RequestOptions {
  /** Wait for the answer, in milliseconds. Default: the setting `requestTimeoutMs`. */
  readonly timeoutMs?: number | undefined;
  /** Ends the wait with `aborted`; the handler's `message.signal` is aborted, too. */
  readonly signal?: AbortSignal | undefined;
  /** Names with values, or lists of values; or pairs of name and value. */
  readonly headers?: HeadersInput | undefined;
  /**
   * Carrying the request out twice does no harm: if the connection to a listener ends before its answer has come, the
   * request goes to another listener of the topic, once. Default false: it fails with `listener_lost`.
   */
  readonly idempotent?: boolean | undefined;
}

/** Guarantee of a send. */
export type DeliveryName = "at-least-once" | "at-most-once";

/** Deliveries by their names. */
export const deliveries: ReadonlyMap<DeliveryName, Delivery> = new Map([
  ["at-least-once", Delivery.AT_LEAST_ONCE],
  ["at-most-once", Delivery.AT_MOST_ONCE],
]);

const encoder = new TextEncoder();

/** A payload's bytes; text becomes UTF-8. */
export function bytesOf(payload: Uint8Array | string): Uint8Array {
  return typeof payload === "string" ? encoder.encode(payload) : payload;
}

/** A peer with the topic under which it sends. */
export interface Origin {
  readonly name: string;
  readonly topic: string;
}

/** Replies to where a message came from. @param to undefined: no peer @param transaction that of the handler */
export type Reply = (
  to: Origin | undefined,
  payload: Payload,
  options: SendOptions | undefined,
  transaction: Transaction | undefined,
) => Promise<ReplyReceipt>;

const noHeaders = new ReceivedHeaders([]);

/** Channel by which a message comes. */
export type Source = Pick<Channel, "connectionKey" | "composite" | "senderName" | "sourceTopic">;

/** Message as its handler gets it. A class, so that a million messages share their methods. */
export class MessageView implements TransactionalMessage {
  readonly topic: string;
  readonly payload: Uint8Array;
  readonly attempt: number;
  readonly #message: IncomingMessage;
  readonly #source: Source;
  readonly #transaction: Transaction | undefined;
  #cancellation: Cancellation | undefined;
  #headers: MessageHeaders | undefined;

  readonly #replyTo: Reply;

  /**
   * @param payload uncompressed
   * @param transaction that of the handler, if it has one
   * @param cancellation of a request that itself; undefined: made when it is asked for
   */
  constructor(
    replyTo: Reply,
    source: Source,
    message: IncomingMessage,
    topic: string,
    payload: Uint8Array,
    attempt: number,
    transaction?: Transaction,
    cancellation?: Cancellation,
  ) {
    this.#replyTo = replyTo;
    this.#source = source;
    this.#message = message;
    this.topic = topic;
    this.payload = payload;
    this.attempt = attempt;
    this.#transaction = transaction;
    this.#cancellation = cancellation;
  }

  /** The same message in another transaction, or cancelled together with others. */
  with(transaction: Transaction | undefined, cancellation = this.#cancellation): MessageView {
    const { topic, payload, attempt } = this;
    const [replyTo, source, message] = [this.#replyTo, this.#source, this.#message];
    return new MessageView(replyTo, source, message, topic, payload, attempt, transaction, cancellation);
  }

  /** Aborted when the handler's time is up, and when the peer stops without waiting for it any longer. */
  get cancellation(): Cancellation {
    this.#cancellation ??= new Cancellation();
    return this.#cancellation;
  }

  get senderTopic(): string | undefined {
    return this.#origin?.topic;
  }

  get sender(): string | undefined {
    return this.#origin?.name;
  }

  get enqueuedBy(): string | undefined {
    // A message of a database that was upgraded may have none.
    return this.#enqueued()?.[2] || undefined;
  }

  get #origin(): Origin | undefined {
    const { senderName, sourceTopic } = this.#source;
    if (senderName !== outboxConstants.peerSender) return { name: senderName, topic: sourceTopic };
    const [name, topic] = this.#enqueued() ?? ["", ""];
    return name === "" ? undefined : { name, topic };
  }

  /** The peer, its topic and the role that enqueued it: a sender may give any header, the outbox writes this one. */
  #enqueued(): readonly [name: string, topic: string, role: string] | undefined {
    if (this.#source.senderName !== outboxConstants.peerSender) return undefined;
    const { headers } = this.#message;
    const [name = "", topic = "", ...role] =
      (headers && headerValue(headers, protocolConstants.messageOriginHeader))?.split(":") ?? [];
    return [name, topic, role.join(":")];
  }

  get headers(): MessageHeaders {
    const { pairs } = this;
    this.#headers ??= pairs === undefined ? noHeaders : new ReceivedHeaders(pairs);
    return this.#headers;
  }

  /** Headers as pairs, for the types of a topic. */
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
    return this.#message.position === undefined ? "at-most-once" : "at-least-once";
  }

  get id(): string | undefined {
    const { headers, position } = this.#message;
    const given = headers && headerValue(headers, protocolConstants.messageIdHeader);
    if (given !== undefined || position === undefined) return given;
    return `${this.#source.composite}/${position.epoch}/${position.number}`;
  }

  get key(): string | undefined {
    return this.#message.key;
  }

  get signal(): AbortSignal {
    return this.cancellation.signal;
  }

  get client(): PoolClient {
    if (this.#transaction !== undefined) return this.#transaction as PoolClient;
    throw new HawserError(
      "not_supported",
      "message.client needs a transactional handler: handle(topic, { transactional: true }, …)",
    );
  }

  reply(payload: Payload, options?: SendOptions): Promise<ReplyReceipt> {
    return this.#replyTo(this.#origin, payload, options, this.#transaction);
  }
}

/** Batch as its handler gets it. `fail` is called with the index of a message. */
export class BatchView implements TransactionalBatch {
  readonly messages: readonly TransactionalMessage[];
  readonly fail: Batch["fail"];
  #hasEnded = false;

  constructor(messages: readonly TransactionalMessage[], fail: (index: number, error: unknown) => void) {
    this.messages = messages;
    this.fail = (message, error) => {
      const index = this.messages.indexOf(message as TransactionalMessage);
      if (index >= 0 && !this.#hasEnded) return fail(index, error);
      const why = index < 0 ? "the message is not of this batch; give one of batch.messages" : endedBatch;
      throw new HawserError("invalid_argument", `batch.fail with message ${message?.id}: ${why}`);
    };
  }

  get signal(): AbortSignal {
    return this.messages[0]!.signal;
  }

  get client(): PoolClient {
    return this.messages[0]!.client;
  }

  /** The handler has ended. */
  end(): void {
    this.#hasEnded = true;
  }
}

const endedBatch = "the handler of the batch has ended; call it before the handler returns or its promise resolves";
