import type { Position } from "./position.js";
import type { AckNews, Headers, PayloadEncoding } from "./sender-types.js";

/** A message on its way to the handler. Numbered ones have their place in the channel. */
export interface IncomingMessage {
  /** The place in the channel; undefined for an at-most-once message. */
  readonly position: Position | undefined;
  readonly topicKey: number;
  /** As it came: perhaps compressed. */
  readonly payload: Uint8Array;
  /** Undefined for a plain payload. */
  readonly encoding: PayloadEncoding | undefined;
  readonly headers: Headers | undefined;
  /** Came over the connection (and counts for what is kept in memory), as opposed to out of the store. */
  readonly fromWire: boolean;
}

/** A message whose handler was given up, with the reason. */
export interface DeadMessage {
  readonly message: IncomingMessage;
  readonly errorCode: string;
  readonly errorMessage: string;
  readonly attempts: number;
}

/** A row of the store, above the accepted watermark. */
export interface StoredRow extends IncomingMessage {
  readonly position: Position;
}

/** Limits of a listener's channel. Times in ms. */
export interface ListenerLimits {
  readonly creditBytes: number;
  readonly busyAfterMs: number;
  readonly maxAttempts: number;
  readonly retryDelayMs: number;
  readonly shortBacklogRows: number;
  /** The store is asked for more only while at most this many messages wait for the handler. */
  readonly refillBelow: number;
  /** … and at most so many payload bytes. */
  readonly refillBelowBytes: number;
  /** Handlers commit the cursor themselves, in their transaction: one message after another, none before the last commit. */
  readonly transactional: boolean;
  /** The process before may have been killed by a message: see handling.ts. */
  readonly careful: boolean;
}

/** How a handler ended. */
export type HandlerResult =
  | { readonly kind: "done" }
  /** Done, and the cursor was committed with it. */
  | { readonly kind: "committed" }
  | { readonly kind: "failed"; readonly errorCode: string; readonly errorMessage: string }
  /**
   * The session with Postgres in which the handler ran has ended before the message was done. Perhaps the message ends
   * it: its starts are counted in the store from now on, as after an unclean exit of the process.
   */
  | { readonly kind: "sessionEnded"; readonly errorCode: string; readonly errorMessage: string }
  /** Not to be tried again. */
  | { readonly kind: "refused"; readonly errorCode: string; readonly errorMessage: string }
  /** The handler was never started, or its end does not count: tried again after a while, as the same attempt. */
  | { readonly kind: "postponed" };

/** What a listener's channel asks of the world. Every call returns at once; answers come back as events. */
export interface ListenerEffects {
  /** Writes an Ack to the channel's connection. */
  writeAck(connection: unknown, ack: AckNews): void;
  /** Closes a connection that a newer one replaces. */
  closeConnection(connection: unknown): void;
  /** Stops, or goes on, reading from the connection. */
  pauseReading(connection: unknown, paused: boolean): void;
  /**
   * Asks the store for rows above `after`, in order, in one snapshot taken after this call. Answered by `onRows` or
   * `onQueryFailed`; there is never more than one under way.
   */
  query(after: Position): void;
  /** Deletes stored rows at or below the committed cursor: leftovers of inserts that landed late. */
  deleteStale(cursor: Position): void;
  /** Commits the cursor, with the messages that are dead letters from then on. Answered by `onCommitted`. */
  commit(cursor: Position, dead: DeadMessage | undefined): void;
  /**
   * Counts, in the store, a start of the message behind the cursor. Answered by `onAttemptCounted` or `onCountFailed`;
   * there is never more than one under way.
   */
  countAttempt(): void;
  /** {@link ListenerChannel.take} has something now. */
  ready(): void;
  /** An at-most-once message's handler failed: it is gone. */
  dropped(message: IncomingMessage, errorCode: string, errorMessage: string): void;
  /** Numbers that nobody has: somebody deleted them. */
  gap(epoch: number, first: number, last: number): void;
}
