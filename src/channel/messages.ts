/** The messages of a channel, and their places in it. */
import type { Delivery, PayloadCompression } from "../../generated/ts/codecs/hawser/peer/v1/frames.js";

/**
 * A place in a channel: the sender's epoch and the message's number within it, from 1. Numbers are contiguous within an
 * epoch and never withdrawn once given. Both stay below 2^53.
 */
export interface Position {
  readonly epoch: number;
  readonly number: number;
}

/** Negative when `a` comes before `b`, positive when after, 0 when they are the same place. */
export function comparePositions(a: Position, b: Position): number {
  return a.epoch === b.epoch ? a.number - b.number : a.epoch - b.epoch;
}

/** Headers of a message, in order; names may repeat. */
export type Headers = readonly (readonly [name: string, value: string])[];

/** The first value of a header; undefined: there is none. */
export function headerValue(headers: Headers, name: string): string | undefined {
  for (const [each, value] of headers) if (each === name) return value;
  return undefined;
}

/** How a payload is compressed, and how long it is uncompressed. */
export type PayloadEncoding = Readonly<Pick<PayloadCompression, "compression" | "uncompressedBytes">>;

/** A message on its way out. The caller makes it, with what else it wants to find again when the outcome is known. */
export interface OutgoingMessage {
  readonly delivery: Delivery;
  readonly topicKey: number;
  /** As it travels: perhaps compressed. */
  readonly payload: Uint8Array;
  /** Undefined for a plain payload. */
  readonly encoding: PayloadEncoding | undefined;
  readonly headers: Headers | undefined;
}

/**
 * The bytes that a message takes in memory while it waits: its payload, its headers, and `overheadBytes` for itself and for
 * each header. Payloads alone would leave empty messages and long headers without a limit.
 */
export function memoryBytes(
  { payload, headers }: Pick<IncomingMessage, "payload" | "headers">,
  overheadBytes: number,
): number {
  let bytes = payload.length + overheadBytes;
  if (headers !== undefined) for (const [name, value] of headers) bytes += name.length + value.length + overheadBytes;
  return bytes;
}

/** A message on its way to the handler. */
export interface IncomingMessage {
  /** The place in the channel; undefined for an at-most-once message. */
  readonly position: Position | undefined;
  readonly topicKey: number;
  /** As it came: perhaps compressed. */
  readonly payload: Uint8Array;
  /** Undefined for a plain payload. */
  readonly encoding: PayloadEncoding | undefined;
  readonly headers: Headers | undefined;
  /** Messages with the same key are handled in order, those with different keys side by side. */
  readonly key: string | undefined;
  /** Came over the connection (and counts for what is kept in memory), as opposed to out of the store. */
  readonly fromWire: boolean;
}

/** A row of the store, above the accepted watermark. */
export interface StoredRow extends IncomingMessage {
  readonly position: Position;
}

/** A message that waits long to be tried again, or behind such a message of its key. The store keeps it; the cursor passes it. */
export interface ParkedMessage {
  readonly message: IncomingMessage & { readonly position: Position };
  /** How often its handler was started. */
  readonly attempts: number;
  /** When it is to be tried again. */
  readonly dueAt: number;
}

/** An attempt that has failed. */
export interface FailedAttempt {
  /** From 1. */
  readonly attempt: number;
  /** In ms since 1970. */
  readonly at: number;
  readonly code: string;
  /** In at most `dead_letter_failure_bytes`. */
  readonly message: string;
}

/** A message whose handler was given up, with the reason. */
export interface DeadMessage {
  readonly message: IncomingMessage;
  /** Uncompressed, unless that was not possible. */
  readonly payload: Uint8Array;
  readonly errorCode: string;
  readonly errorMessage: string;
  readonly attempts: number;
  /** Of the last error. */
  readonly stack?: string | undefined;
  /** The last attempts that are known, in order. */
  readonly failures: readonly FailedAttempt[];
}
