import type { Headers, IncomingMessage } from "../channel/index.js";
import { PeerError } from "../errors/index.js";
import type { Transaction } from "../store/index.js";
import { Delivery } from "../wire/index.js";
import type { DueMessage, Source } from "./handler-call.js";

/** How an at-least-once send ended well: handled by the listener, or surely committed in Postgres. */
export type DurableOutcome = "delivered" | "stored";
/** How an at-most-once send ended: handed to a connection, or dropped because there was none. */
export type TransientOutcome = "sent" | "dropped";

/** What became of a send. */
export interface Receipt {
  readonly outcome: DurableOutcome | TransientOutcome;
  /** The listener's name. */
  readonly peer: string;
}

/**
 * Where a message is enqueued: a client that is in a transaction. That is one of node-postgres, or anything that runs a
 * statement with parameters `$1`, `$2`, … and resolves with the rows, or with an object that has them as `rows`.
 */
export interface EnqueueClient {
  query(text: string, values: unknown[]): PromiseLike<unknown>;
}

/** A message was written in a transaction. It is handed to a listener if, and only if, that commits. */
export interface EnqueuedReceipt {
  readonly outcome: "enqueued";
  /** The number of the message in the outbox. */
  readonly id: bigint;
}

/** What became of a reply. */
export type ReplyReceipt = Receipt | (EnqueuedReceipt & Pick<Receipt, "peer">);

/** How a message is enqueued. */
export interface EnqueueOptions {
  /** Names and values; a list of pairs where names repeat. */
  readonly headers?: Record<string, string> | Headers | undefined;
  /** Messages with the same topic and key are handled in the order of their commits. */
  readonly key?: string | undefined;
  /** The handler finds it in the header `message-id`. */
  readonly messageId?: string | undefined;
  /** The message is handed over then, or later. Until then `hawser.outbox_cancel` takes it back. */
  readonly deliverAt?: Date | undefined;
}

/** A message to enqueue. */
export interface MessageToEnqueue extends EnqueueOptions {
  readonly topic: string;
  /** At least one byte; text becomes UTF-8. */
  readonly payload: Uint8Array | string;
}

/** How a message is sent. */
export interface SendOptions {
  /** Default `at-least-once`. */
  readonly delivery?: DeliveryName | undefined;
  /** Names and values; a list of pairs where names repeat. */
  readonly headers?: Record<string, string> | Headers | undefined;
  /** Ends the wait with `aborted`; the message itself may still arrive. */
  readonly signal?: AbortSignal | undefined;
}

/** A message for a handler. */
export interface Message {
  /** The topic that it was sent to. */
  readonly to: string;
  /** The sender's source topic. */
  readonly from: string;
  /** The sender's name. */
  readonly sender: string;
  /**
   * The payload, uncompressed. A view into a received chunk: it keeps that chunk (64 KiB, or the whole frame) alive, so
   * copy what is kept for long.
   */
  readonly payload: Uint8Array;
  readonly headers: Headers;
  /**
   * At least how many times it was begun, this time included: 1 for the first attempt, more after the handler failed or
   * the process ended in the middle of it. Starts from before the first unclean exit are not counted.
   */
  readonly attempt: number;
  readonly delivery: DeliveryName;
  /**
   * With `transactional: true`: the client of a transaction that is committed together with the message's being done, so
   * that what the handler writes through it happens exactly once. Neither commit nor roll back: a handler that does has
   * failed (`handler_failed`), and what it had committed stays. Keep nothing of it after the handler's end. Replies are
   * part of the transaction, and so is what is sent with it as the `transaction`; what else is sent meanwhile is sent again
   * by each attempt.
   *
   * @throws PeerError `not_supported` for other peers
   */
  readonly client: Transaction;
  /**
   * Sends to the very peer that sent this message, under its source topic. With `transactional: true` it is written in the
   * handler's transaction (`enqueued`), unless it is `at-most-once`.
   *
   * @throws PeerError (as a rejection) `no_address` if the message was enqueued: then nobody waits for a reply
   */
  reply(payload: Uint8Array | string, options?: SendOptions): Promise<ReplyReceipt>;
}

/**
 * Handles a message. When it returns, or its promise resolves, the message is done: it will not come again. When it
 * throws, it is tried again after a while, up to `maxAttempts` times; then the message is a dead letter.
 */
export type Handler = (message: Message) => unknown;

/** How a message is delivered, in users' words. */
export type DeliveryName = "at-least-once" | "at-most-once";

/** The delivery that a name stands for; undefined for what is no name of one. */
export function deliveryOf(name: DeliveryName): Delivery | undefined {
  if (name === "at-least-once") return Delivery.AT_LEAST_ONCE;
  return name === "at-most-once" ? Delivery.AT_MOST_ONCE : undefined;
}

const encoder = new TextEncoder();

/** A payload's bytes; text becomes UTF-8. */
export function bytesOf(payload: Uint8Array | string): Uint8Array {
  return typeof payload === "string" ? encoder.encode(payload) : payload;
}

/** Replies to where a message came from. @param transaction that of the handler */
export type Reply = (
  source: Source,
  payload: Uint8Array | string,
  options: SendOptions | undefined,
  transaction: Transaction | undefined,
) => Promise<ReplyReceipt>;

const noHeaders: Headers = [];

/** What the handler sees of a message. A class, so that a million of them share their methods. */
export class MessageView implements Message {
  readonly to: string;
  readonly payload: Uint8Array;
  readonly attempt: number;
  readonly #message: IncomingMessage;
  readonly #source: Source;
  readonly #transaction: Transaction | undefined;

  readonly #replyTo: Reply;

  constructor({ message, to, source, payload, attempt, client }: DueMessage, replyTo: Reply) {
    this.#replyTo = replyTo;
    this.to = to;
    this.payload = payload;
    this.attempt = attempt;
    this.#message = message;
    this.#source = source;
    this.#transaction = client;
  }

  get from(): string {
    return this.#source.sourceTopic;
  }

  get sender(): string {
    return this.#source.senderName;
  }

  get headers(): Headers {
    return this.#message.headers ?? noHeaders;
  }

  get delivery(): DeliveryName {
    return this.#message.position === undefined ? "at-most-once" : "at-least-once";
  }

  get client(): Transaction {
    if (this.#transaction !== undefined) return this.#transaction;
    throw new PeerError(
      "not_supported",
      "message.client needs transactional handlers: new Peer({ transactional: true })",
    );
  }

  reply(payload: Uint8Array | string, options?: SendOptions): Promise<ReplyReceipt> {
    return this.#replyTo(this.#source, payload, options, this.#transaction);
  }
}
