import type { Headers, IncomingMessage } from "../channel/index.js";
import { PeerError } from "../errors/index.js";
import type { Transaction } from "../store/index.js";
import type { DueMessage, Source } from "./inbox-services.js";
import type { Message, Receipt, SendOptions } from "./message.js";

/** Replies to where a message came from. */
export type Reply = (
  source: Source,
  payload: Uint8Array | string,
  options: SendOptions | undefined,
) => Promise<Receipt>;

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

  get delivery(): "at-least-once" | "at-most-once" {
    return this.#message.position === undefined ? "at-most-once" : "at-least-once";
  }

  get client(): Transaction {
    if (this.#transaction !== undefined) return this.#transaction;
    throw new PeerError(
      "not_supported",
      "message.client needs transactional handlers: new Peer({ transactional: true })",
    );
  }

  reply(payload: Uint8Array | string, options?: SendOptions): Promise<Receipt> {
    return this.#replyTo(this.#source, payload, options);
  }
}
