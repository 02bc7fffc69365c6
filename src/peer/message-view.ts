import type { Headers } from "../channel/index.js";
import type { Delivered } from "./inbox.js";
import type { Message, Receipt, SendOptions } from "./message.js";

/** Replies to the sender of a message. */
export type Reply = (
  delivered: Delivered,
  payload: Uint8Array | string,
  options: SendOptions | undefined,
) => Promise<Receipt>;

const noHeaders: Headers = [];

/** What the handler sees of a message. A class, so that a million of them share their methods. */
export class MessageView implements Message {
  constructor(
    private readonly delivered: Delivered,
    private readonly replyTo: Reply,
  ) {}

  get to(): string {
    return this.delivered.to;
  }

  get from(): string {
    return this.delivered.from;
  }

  get sender(): string {
    return this.delivered.sender;
  }

  get payload(): Uint8Array {
    return this.delivered.payload;
  }

  get headers(): Headers {
    return this.delivered.message.headers ?? noHeaders;
  }

  get attempt(): number {
    return this.delivered.attempt;
  }

  get delivery(): "at-least-once" | "at-most-once" {
    return this.delivered.message.position === undefined ? "at-most-once" : "at-least-once";
  }

  reply(payload: Uint8Array | string, options?: SendOptions): Promise<Receipt> {
    return this.replyTo(this.delivered, payload, options);
  }
}
