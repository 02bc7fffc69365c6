/** Messages that leave their channels: what the SQL functions get of them. They become rows of the queue, or dead letters. */
import { createHash } from "node:crypto";
import { limits } from "../../../generated/ts/rules/peer/catalog.js";
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import { shortened, withoutPasswords } from "../../foundation/errors/index.js";
import {
  deadLetterFailureBytes,
  type FailedAttempt,
  type Headers,
  headerValue,
  type IncomingMessage,
} from "../channel/index.js";
import type { Channel, Position } from "./channels.js";

/** Message that leaves its channel. */
export interface LeftMessage extends Position {
  readonly channelId: number;
  readonly topicId: number;
  /** The only listener that may have it; undefined: any of the topic. */
  readonly listener: string | undefined;
  /** Its lane in the channel, as {@link laneOf} makes it. */
  readonly lane: string;
  /** Its place: `channel/epoch/number`. */
  readonly messageId: string;
  /** Uncompressed payload. */
  readonly payload: Uint8Array;
  readonly headers: Headers;
  /** Number of failed attempts. */
  readonly attempts: number;
  readonly failures: readonly FailedAttempt[];
  /** Time until the next attempt in ms. */
  readonly delayMs: number;
  readonly isSuspect: boolean;
  /** Worker of this process that has it, as its handler runs; undefined: none does. */
  readonly worker: bigint | undefined;
  /** Error with which it becomes a dead letter; undefined for a row of the queue. */
  readonly dead:
    | { readonly errorCode: string; readonly errorMessage: string; readonly stack?: string | undefined }
    | undefined;
}

/** Most headers of a message of the queue. */
const mostHeaders = 254;
/** Keys that name their lane: every database has their characters. Of all other keys the hash does. */
const shortKey = /^[\x20-\x7e]{0,200}$/;

/** Name of the lane of a key in its channel; undefined is the key of the messages without one. */
export function laneOf(key: string | undefined): string {
  if (key === undefined) return "";
  if (shortKey.test(key)) return `=${key}`;
  return `#${createHash("sha256").update(key).digest("hex")}`;
}

/** Message that leaves its channel, with its place as its id, unless its sender has given another one. */
export function leftMessage(
  { channelId, channelName }: Pick<Channel, "channelId" | "channelName">,
  { position, topicId, key, headers = [], fault }: IncomingMessage & { readonly position: Position },
  { dead, ...rest }: Pick<LeftMessage, "payload" | "listener" | "dead"> & Partial<LeftMessage>,
): LeftMessage {
  const messageId = `${channelName}/${position.epoch}/${position.number}`;
  const hasId = headers.length >= mostHeaders || headerValue(headers, protocolConstants.messageIdHeader) !== undefined;
  return {
    ...position,
    ...{ channelId, topicId, messageId, lane: laneOf(key) },
    headers: hasId ? headers : [...headers, [protocolConstants.messageIdHeader, messageId]],
    ...{ attempts: 0, failures: [], delayMs: 0, isSuspect: false, worker: undefined },
    // The row could not say that it breaks a rule.
    dead: dead ?? (fault === undefined ? undefined : { errorCode: "invalid_message", errorMessage: fault }),
    ...rest,
  };
}

/** Size of a message in a statement, approximately. */
export function leftBytes({ payload, headers, failures, dead }: LeftMessage): number {
  let bytes = payload.length + 500;
  for (const [name, value] of headers) bytes += name.length + value.length + 8;
  for (const { message } of failures) bytes += message.length + 100;
  return bytes + (dead === undefined ? 0 : dead.errorMessage.length + (dead.stack?.length ?? 0));
}

/** Arguments of the SQL functions for messages, in their order. */
export function leftArguments(
  messages: readonly LeftMessage[],
  text: (plain: string) => string = plainText,
): { left: string; leftPayloads: Uint8Array } | { left: null; leftPayloads: null } {
  if (messages.length === 0) return { left: null, leftPayloads: null };
  return {
    left: JSON.stringify(messages.map((message) => leftJson(message, text))),
    leftPayloads: Buffer.concat(messages.map(({ payload }) => payload)),
  };
}

function leftJson(message: LeftMessage, text: (plain: string) => string): object {
  const { headers, failures, dead, worker, delayMs } = message;
  return {
    channel_id: message.channelId,
    epoch: message.epoch,
    number: message.number,
    topic_id: message.topicId,
    listener: message.listener,
    lane: message.lane,
    message_id: message.messageId,
    headers: headers.map(([name, value]) => [text(storable(name)), text(storable(value))]),
    attempts: message.attempts,
    delay_ms: delayMs > 0 ? Math.ceil(delayMs) : undefined,
    is_suspect: message.isSuspect ? true : undefined,
    worker: worker === undefined ? undefined : Number(worker),
    failures: failures.length === 0 ? undefined : failures.map((failure) => failureJson(failure, text)),
    payload_bytes: message.payload.length,
    error_code: dead && storable(dead.errorCode),
    error_message: dead && text(textOf(dead.errorMessage, limits.DeadLetter.errorMessage.maxBytes)),
    stack: dead?.stack === undefined ? undefined : text(textOf(dead.stack, limits.DeadLetter.stack.maxBytes)),
  };
}

/** A failed attempt as rows and dead letters have it. */
export function failureJson({ attempt, at, code, message }: FailedAttempt, text = plainText) {
  return {
    attempt,
    at: new Date(at).toISOString(),
    code: storable(code),
    message: text(textOf(message, deadLetterFailureBytes)),
  };
}

/** Text of a handler's error within `maxBytes`, without the passwords of its URLs. */
export function textOf(text: string, maxBytes: number): string {
  // Limits the input first, because the replacement is superlinear in the length of the text.
  return shortened(withoutPasswords(storable(text.slice(0, 2 * maxBytes))), maxBytes);
}

/** Escapes non-ASCII characters as JSON does. */
export function escaped(text: string): string {
  return text.replace(/[^\0-\x7f]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function plainText(text: string): string {
  return text;
}

/** Replaces U+0000 and lone surrogates, which a handler's error may contain and Postgres rejects. */
function storable(text: string): string {
  return Buffer.from(text).toString().replaceAll("\0", "\uFFFD");
}
