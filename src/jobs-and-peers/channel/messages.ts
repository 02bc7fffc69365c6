/** Messages of a channel and their positions. */
import type { Delivery, PayloadCompression } from "../../../generated/ts/codecs/hawser/peer/v1/frames.js";

/**
 * Position in a channel: the sender's epoch and the message's number within it, from 1. Numbers are contiguous within
 * an epoch and never reused. Both stay below 2^53.
 */
export interface Position {
  readonly epoch: number;
  readonly number: number;
}

/** Negative if `a` comes before `b`, positive if it comes after, 0 if they are equal. */
export function comparePositions(a: Position, b: Position): number {
  return a.epoch === b.epoch ? a.number - b.number : a.epoch - b.epoch;
}

/** Headers of a message, in order. Names may repeat. */
export type Headers = readonly (readonly [name: string, value: string])[];

/** First value of the header `name`; undefined if there is none. */
export function headerValue(headers: Headers, name: string): string | undefined {
  for (const [each, value] of headers) if (each === name) return value;
  return undefined;
}

/** Compression of a payload, and its uncompressed size. */
export type PayloadEncoding = Readonly<Pick<PayloadCompression, "compression" | "uncompressedBytes">>;

/** Message to send. The caller may add its own fields, to find its state again when the outcome arrives. */
export interface OutgoingMessage {
  readonly delivery: Delivery;
  readonly topicId: number;
  /** Payload as transmitted, possibly compressed. */
  readonly payload: Uint8Array;
  /** Undefined for an uncompressed payload. */
  readonly encoding: PayloadEncoding | undefined;
  readonly headers: Headers | undefined;
}

/**
 * Memory in bytes of a waiting message: payload, headers, and `overheadBytes` for the message and for each header. A
 * count of payloads alone would not limit empty messages and long headers.
 */
export function memoryBytes(
  { payload, headers }: Pick<IncomingMessage, "payload" | "headers">,
  overheadBytes: number,
): number {
  let bytes = payload.length + overheadBytes;
  if (headers !== undefined) for (const [name, value] of headers) bytes += name.length + value.length + overheadBytes;
  return bytes;
}

/** Result of a message that is kept. */
export interface KeptResult {
  /** Value that the handler returned, as JSON in ASCII; undefined if there is none. */
  readonly json: string | undefined;
  /** Duration of the attempt that has returned, in ms. */
  readonly durationMs: number;
  /** Writes the progress, at most once a second. @throws HawserError `invalid_argument` */
  progress(value: unknown): void;
  /** Sets `json` and `durationMs`. @throws HawserError `rejected` for a value that cannot be kept */
  returned(value: unknown, durationMs: number): void;
}

/**
 * Message that a handler is called with: a job, a message of a channel, or a request. Calls, results, status events, log lines
 * and spans need no more of it.
 */
export interface HandledMessage {
  /** `message.id` of the handler; undefined for a message that has none. */
  readonly messageId: string | undefined;
  /** {@link messageId}, if the sender knows it, too; undefined for a position in a channel. */
  readonly sentId: string | undefined;
  /** Peer that sent or enqueued the message; undefined if no peer did. */
  readonly sender: Origin | undefined;
  /** Database role that enqueued the message; undefined if it was sent. */
  readonly enqueuedBy: string | undefined;
  readonly isAtMostOnce: boolean;
  /** Uncompressed payload. */
  readonly payload: Uint8Array;
  readonly headers: Headers | undefined;
  readonly key: string | undefined;
  /** True if the message came over a connection, and so belongs to no trace as a rule. */
  readonly fromWire: boolean;
  /** Reason why the message must become a dead letter: its row in the store breaks a rule. */
  readonly fault?: string | undefined;
  /** Undefined if nothing is kept of the message. */
  readonly kept?: KeptResult | undefined;
}

/** Name of a peer and the topic under which it sends. */
export interface Origin {
  readonly name: string;
  readonly topic: string;
}

/** Message that a channel has received. It does not say when it was sent: frames carry no time. */
export interface IncomingMessage {
  /** Position in the channel; undefined for an at-most-once message. */
  readonly position: Position | undefined;
  readonly topicId: number;
  /** Payload as received, possibly compressed. */
  readonly payload: Uint8Array;
  /** Undefined for an uncompressed payload. */
  readonly encoding: PayloadEncoding | undefined;
  readonly headers: Headers | undefined;
  /** Ordering key. Messages with the same key are handled in order, messages with different keys in parallel. */
  readonly key: string | undefined;
  /** True if the message came over the connection and counts for the credit; false if it came from the store. */
  readonly fromWire: boolean;
  /** Reason why the message must become a dead letter: its row in the store breaks a rule. */
  readonly fault?: string | undefined;
}

/** Stored message above the accepted watermark. */
export interface StoredRow extends IncomingMessage {
  readonly position: Position;
}

/** Message that is not done, and leaves its channel with the cursor that passes it: it becomes a row of the queue, or a dead letter. */
export interface LeavingMessage {
  readonly message: IncomingMessage & { readonly position: Position };
  /** Key of its lane; undefined for the messages without one. */
  readonly key: string | undefined;
  /** Uncompressed payload, if it is compressed and that is known. */
  readonly plain: Uint8Array | undefined;
  /** Number of failed attempts. */
  readonly attempts: number;
  readonly failures: readonly FailedAttempt[];
  /** Time in ms from which on it may be tried again; undefined: at once. */
  readonly dueAt: number | undefined;
  /** True if it may have ended an earlier process. */
  readonly isSuspect: boolean;
  /** Set if its handler runs: the `StartedMessage`. This process has the row, and is told when the handler ends. */
  readonly turn: object | undefined;
  /** Error with which it becomes a dead letter; undefined for a row of the queue. */
  readonly dead: Pick<DeadMessage, "errorCode" | "errorMessage" | "stack"> | undefined;
}

/** Failed attempt of a message. */
export interface FailedAttempt {
  /** Number of the attempt, from 1. */
  readonly attempt: number;
  /** Time in ms since 1970. */
  readonly at: number;
  readonly code: string;
  /** Error message, shortened to `deadLetterFailureBytes`. */
  readonly message: string;
}

/** Message that failed permanently, with its last error. */
export interface DeadMessage {
  /** Uncompressed payload; the compressed one if decompression failed. */
  readonly payload: Uint8Array;
  readonly errorCode: string;
  readonly errorMessage: string;
  readonly attempts: number;
  /** Stack of the last error. */
  readonly stack?: string | undefined;
}
