import type { Headers, IncomingMessage } from "../channel/index.js";
import type { Source } from "./listener-link.js";
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
  constructor(
    private readonly message: IncomingMessage,
    readonly to: string,
    private readonly source: Source,
    readonly payload: Uint8Array,
    readonly attempt: number,
    private readonly replyTo: Reply,
  ) {}

  get from(): string {
    return this.source.sourceTopic;
  }

  get sender(): string {
    return this.source.senderName;
  }

  get headers(): Headers {
    return this.message.headers ?? noHeaders;
  }

  get delivery(): "at-least-once" | "at-most-once" {
    return this.message.position === undefined ? "at-most-once" : "at-least-once";
  }

  reply(payload: Uint8Array | string, options?: SendOptions): Promise<Receipt> {
    return this.replyTo(this.source, payload, options);
  }
}
