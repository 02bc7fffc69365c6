/** Effects, events and limits of the two halves of a channel. */
import type { Ack, Delivery, Welcome } from "../../../generated/ts/codecs/hawser/peer/v1/frames.js";
import type { PeerSettings, TuningSettings } from "../../../generated/ts/settings/peer.js";
import type { ConcurrencyLimit, Waiter } from "../handlers/limits/concurrency-limit.js";
import type { IncomingMessage, LeavingMessage, OutgoingMessage, Position } from "./messages.js";

/**
 * Outcome of a send:
 * - `delivered`: the listener's handler ran, and its cursor is committed;
 * - `stored`: Postgres has committed the message, from the sender or as a row of the queue;
 * - `sent` / `dropped`: an at-most-once message was, or was not, handed to a connection;
 * - `timed-out`: neither delivered nor stored within the send timeout; the message keeps its number and may still
 * arrive;
 * - `fenced`: another process owns the sender's name; the message may or may not arrive;
 * - `abandoned`: the sender ended before the message was confirmed; it may or may not arrive.
 */
export type SendOutcome = "delivered" | "stored" | "sent" | "dropped" | "timed-out" | "fenced" | "abandoned";

/** Limits of the batches that a sender writes to its connection. Tests give others. */
export const senderDefaults = {
  /** Payload bytes after which a new batch frame is started; a single payload always fits. */
  batchTargetBytes: 64 * 1024,
  /** Maximum number of messages of a batch frame. */
  batchMaxMessages: 16_384,
};

export type SenderLimits = Pick<PeerSettings, "sendTimeoutMs"> &
  Pick<TuningSettings, "ackTimeoutMs" | "connectWaitMs" | "maxSendQueueMessages" | "maxSendQueueBytes"> &
  Readonly<typeof senderDefaults> & {
    /** Greatest backlog of a listener that allows the sender to go live. */
    readonly shortBacklogRows: number;
    /** Maximum number of messages of one insert. */
    readonly insertRows: number;
    /** Maximum payload bytes of one insert; a single message always fits. */
    readonly insertBytes: number;
    /** Shortest delay before an insert is repeated. */
    readonly storeRetryMinMs: number;
    /** Longest delay before an insert is repeated. */
    readonly storeRetryMaxMs: number;
  };

/** Fields of the listener's Welcome that the sender's channel needs. */
export type ChannelWelcome = Readonly<
  Pick<Welcome, "cursorEpoch" | "cursor" | "backlog" | "credit" | "maxMessageBytes" | "queued">
>;

/**
 * State of the connection between a sender's channel and its listener:
 * - `connecting`: the first dial is in progress; messages wait for it;
 * - `draining`: connected, but the listener still has a long backlog in the store; new messages are stored;
 * - `going-live`: GoLive was sent; messages go over the connection;
 * - `live`: the listener has no stored messages left;
 * - `down`: no connection, and the last attempt failed; messages are stored;
 * - `ended`: fenced or stopped for good.
 */
export type LinkState = "connecting" | "draining" | "going-live" | "live" | "down" | "ended";

/** Side effects that a sender's channel requests. Each call returns at once; results come back as events. */
export interface SenderEffects<Message extends OutgoingMessage> {
  /** Writes messages of one topic to the connection. */
  writeBatch(delivery: Delivery, topicId: number, firstNumber: number, messages: Message[]): void;
  /** Writes GoLive to the connection. */
  writeGoLive(): void;
  /**
   * Stores messages with contiguous numbers from `firstNumber` in one insert. Answered by `onStored`, `onStoreFailed`
   * or `onFenced`. At most one insert is pending at a time.
   */
  store(firstNumber: number, messages: Message[]): void;
  /** Notifies the listener through the database that it has stored messages. Best effort. */
  announce(): void;
  /** Reports the outcome of a send. Called once per message. */
  sendEnded(message: Message, outcome: SendOutcome): void;
  linkChanged(state: LinkState): void;
}

/** Retry limit and delays of a message: `policyOf` in `src/jobs-and-peers/handlers/handling-settings.ts` makes it of the user's `retry`. */
export interface RetryPolicy {
  /** Maximum number of attempts, including the first; at least 1. */
  readonly attempts: number;
  /** Delay in ms after attempt number `attempts` (from 1) has failed. */
  delayMs(attempts: number): number;
}

/** Limits of a listener's channel. Tests give others. */
export const listenerDefaults = {
  /**
   * Bytes counted for a message that waits in memory, and again for each of its headers, in addition to its payload and
   * the names and values of its headers.
   */
  messageOverheadBytes: 128,
  /** Maximum factor by which handled and uncommitted bytes increase a sender's credit. */
  maxCreditGrowth: 4,
  /**
   * Time in ms after which the messages leave that are in front of one that has ended. So a process that is killed repeats what it has ended
   * within twice this time.
   */
  leaveAfterMs: 500,
  /** Shortest and longest interval in ms at which the store is asked whether the queue still has rows of lanes that have left. */
  askLeastMs: 100,
  askMostMs: 5_000,
  /** Maximum number of lanes of one such question. */
  lanesAtOnce: 1_000,
};

export interface ListenerLimits
  extends Pick<TuningSettings, "creditBytes" | "busyAfterMs">,
    Readonly<typeof listenerDefaults> {
  /** Greatest backlog that allows a sender to go live. */
  readonly shortBacklogRows: number;
  /** Retry policy of a message. */
  retryOf(message: IncomingMessage): RetryPolicy;
  /** Concurrency limit of the message's handler; undefined if there is none. */
  limitOf(message: IncomingMessage): ConcurrencyLimit | undefined;
  /** Number of messages waiting for the handler, up to which the store is queried for more. */
  readonly refillBelow: number;
  /** Memory in bytes of waiting messages, up to which the store is queried for more. */
  readonly refillBelowBytes: number;
  /**
   * Whether the queue is to handle the message, as this process must not, or not outside of its transaction: `topic` if it is to handle all
   * messages of the topic, so that those of others in its lane need not wait.
   */
  leaves(message: IncomingMessage): false | "message" | "topic";
  /** Number of the first messages that may have ended an earlier process. */
  readonly suspects: number;
  /** True if the queue may have rows of the channel. */
  readonly hasRows: boolean;
}

/** Error of a failed handler. */
interface HandlerFailure {
  readonly errorCode: string;
  readonly errorMessage: string;
  readonly stack?: string | undefined;
  /** Time of the failure in ms since 1970. Without it, the dead letter does not list the attempt. */
  readonly failedAt?: number | undefined;
  /** Delay of the retry in ms that the handler wants. Default: that of the {@link RetryPolicy}. */
  readonly delayMs?: number | undefined;
  /** Uncompressed payload, if the payload was compressed. */
  readonly plain?: Uint8Array | undefined;
}

/** Result of a handler. */
export type HandlerResult =
  /** Handled. `isMarked` is true if the mark was written in the transaction of the handler's effects. */
  | { readonly kind: "done"; readonly isMarked?: boolean }
  | ({ readonly kind: "failed" } & HandlerFailure)
  /** The handler wants the message again after `delayMs`, as the same attempt. An at-most-once message is dropped. */
  | ({ readonly kind: "deferred"; readonly delayMs: number } & HandlerFailure)
  /** The handler's Postgres session ended before the message was done. The message may be the cause. */
  | ({ readonly kind: "sessionEnded" } & HandlerFailure)
  /** Failed permanently: the message becomes a dead letter without a retry. */
  | ({ readonly kind: "refused" } & HandlerFailure)
  /** The handler never started, or its outcome does not count. The message is tried again as the same attempt. */
  | { readonly kind: "postponed" };

/**
 * Side effects that a listener's channel requests. Each call returns at once; results come back as events. `run` calls
 * `take`, because a limit that the channel waits for is no longer full.
 */
export interface ListenerEffects extends Waiter {
  /** Writes an Ack to the channel's connection. */
  writeAck(connection: unknown, ack: Ack): void;
  /** Closes a connection that a newer one replaces. */
  closeConnection(connection: unknown): void;
  /** Pauses or resumes reading from the connection. */
  pauseReading(connection: unknown, paused: boolean): void;
  /**
   * Queries the store for rows above `after`, in order, in one snapshot taken after this call. Answered by `onRows` or
   * `onQueryFailed`. At most one query is pending at a time.
   */
  query(after: Position): void;
  /** Deletes stored rows at or below the committed cursor. They come from inserts that committed late. */
  deleteStale(cursor: Position): void;
  /**
   * Commits the cursor, and in the same transaction what leaves the channel with it, in order. Answered by `onCommitted`. Calls take effect
   * in order.
   */
  commit(cursor: Position, leaving: readonly LeavingMessage[]): void;
  /** True if this process can have rows of the queue whose handlers run. */
  mayGoOn(): boolean;
  /**
   * Asks whether the queue has rows of lanes, by their keys, in a snapshot taken after this call. Answered by `onLanes`. At most one question
   * is pending at a time.
   */
  askLanes(keys: readonly (string | undefined)[]): void;
  /** Signals that the channel's `take` can return a message. */
  ready(): void;
  /** Reports an at-most-once message that is lost because its handler failed. */
  dropped(message: IncomingMessage, errorCode: string, errorMessage: string): void;
  /** Reports numbers that exist nowhere, because their messages were deleted. */
  gap(epoch: number, first: number, last: number): void;
}
