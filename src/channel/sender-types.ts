import type { Position } from "./position.js";

/** How a message is delivered. */
export type DeliveryMode = "at-least-once" | "at-most-once";

/** Headers of a message, in order; names may repeat. */
export type Headers = readonly (readonly [name: string, value: string])[];

/**
 * How a send ended:
 * - `delivered`: the listener's handler ran and its cursor is committed;
 * - `stored`: Postgres has surely committed the message;
 * - `sent` / `dropped`: an at-most-once message was, or was not, handed to a connection;
 * - `timed-out`: neither way within the send timeout; the message keeps its number and may still arrive;
 * - `fenced`: another process has the sender's name; the message may or may not arrive;
 * - `abandoned`: the sender ended before the message was confirmed; it may or may not arrive.
 */
export type SendOutcome = "delivered" | "stored" | "sent" | "dropped" | "timed-out" | "fenced" | "abandoned";

/** How a payload is compressed, and what it becomes. */
export interface PayloadEncoding {
  readonly compression: "gzip" | "zstd";
  /** Length of the plain payload. */
  readonly uncompressedBytes: number;
}

/** A message on its way out. The caller makes it, with what else it wants to find again when the outcome is known. */
export interface OutgoingMessage {
  readonly delivery: DeliveryMode;
  readonly topicKey: number;
  /** As it travels: perhaps compressed. */
  readonly payload: Uint8Array;
  /** Undefined for a plain payload. */
  readonly encoding: PayloadEncoding | undefined;
  readonly headers: Headers | undefined;
}

/** Limits of a sender's channel. Times in ms, sizes in payload bytes. */
export interface SenderLimits {
  readonly ackTimeoutMs: number;
  readonly sendTimeoutMs: number;
  readonly connectWaitMs: number;
  readonly maxQueueMessages: number;
  readonly maxQueueBytes: number;
  readonly insertRows: number;
  readonly insertBytes: number;
  readonly batchBytes: number;
  readonly batchMessages: number;
  readonly shortBacklogRows: number;
  readonly storeRetryMinMs: number;
  readonly storeRetryMaxMs: number;
}

/** What the listener says when it accepts a connection. */
export interface WelcomeNews {
  readonly cursor: Position;
  readonly backlog: number;
  readonly credit: number;
  /** The greatest payload that the listener takes over the connection, uncompressed. */
  readonly maxMessageBytes: number;
}

/** What an Ack says. */
export interface AckNews {
  readonly cursor: Position;
  readonly credit: number;
  readonly backlog: number;
  readonly busy: boolean;
  readonly live: boolean;
}

/**
 * Where the channel stands with its listener:
 * - `connecting`: the first dial is under way: messages are held for it;
 * - `draining`: connected, but the listener still has a long backlog in the store: new messages are stored;
 * - `going-live`: GoLive was sent; messages go over the connection;
 * - `live`: the listener has nothing stored left;
 * - `down`: no connection, and the last attempt failed: messages are stored;
 * - `ended`: fenced or stopped for good.
 */
export type LinkState = "connecting" | "draining" | "going-live" | "live" | "down" | "ended";

/** What a sender's channel asks of the world. Every call returns at once; answers come back as events. */
export interface SenderEffects<Message extends OutgoingMessage> {
  /** Writes messages of one topic to the connection. */
  writeBatch(delivery: DeliveryMode, topicKey: number, firstNumber: number, messages: Message[]): void;
  /** Writes GoLive to the connection. */
  writeGoLive(): void;
  /**
   * Stores messages, numbered from `firstNumber` on without a gap, in one insert. Answered by `onStored`, `onStoreFailed` or `onFenced`;
   * there is never more than one under way.
   */
  store(firstNumber: number, messages: Message[]): void;
  /** Tells the listener through the database that something is stored for it: best effort. */
  announce(): void;
  /** Reports the outcome of a send, once for each message. */
  settle(message: Message, outcome: SendOutcome): void;
  /** The link state changed. */
  linkChanged(state: LinkState): void;
}
