/** Message of a channel, as calls of handlers see it. */
import { protocolConstants } from "../../../../generated/ts/settings/peer.js";
import {
  type HandledMessage,
  type Headers,
  headerValue,
  type IncomingMessage,
  type Origin,
  type Position,
} from "../../channel/index.js";
import type { Channel } from "../../store/index.js";

const { messageIdHeader } = protocolConstants;

/** Channel of a received message or request. */
export type Source = Pick<Channel, "channelId" | "channelName" | "senderName" | "sourceTopic">;

export class ChannelMessage implements HandledMessage, IncomingMessage {
  readonly source: Source;
  readonly position: Position | undefined;
  readonly topicId: number;
  readonly payload: Uint8Array;
  readonly encoding: undefined;
  readonly headers: Headers | undefined;
  readonly key: string | undefined;
  readonly fromWire: boolean;
  readonly fault: string | undefined;

  /** @param payload uncompressed payload */
  constructor(
    source: Source,
    position: Position | undefined,
    topicId: number,
    payload: Uint8Array,
    headers: Headers | undefined,
    key?: string,
    fromWire = true,
    fault?: string,
  ) {
    this.source = source;
    this.position = position;
    this.topicId = topicId;
    this.payload = payload;
    this.encoding = undefined;
    this.headers = headers;
    this.key = key;
    this.fromWire = fromWire;
    this.fault = fault;
  }

  get messageId(): string | undefined {
    return messageIdOf(this.source, this);
  }

  get sentId(): string | undefined {
    return this.headers && headerValue(this.headers, messageIdHeader);
  }

  get sender(): Origin {
    return originOf(this.source);
  }

  get enqueuedBy(): undefined {
    return undefined;
  }

  get isAtMostOnce(): boolean {
    return this.position === undefined;
  }
}

/** `message.id`: that of the sender, or the position in the channel. */
export function messageIdOf(
  { channelName }: Source,
  { headers, position }: Pick<IncomingMessage, "headers" | "position">,
): string | undefined {
  const given = headers && headerValue(headers, messageIdHeader);
  if (given !== undefined || position === undefined) return given;
  return `${channelName}/${position.epoch}/${position.number}`;
}

export function originOf({ senderName, sourceTopic }: Source): Origin {
  return { name: senderName, topic: sourceTopic };
}
