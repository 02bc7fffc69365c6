/** What the two halves of a channel ask of the world around them, and what they are told when they are made. */
import type { Ack, Delivery, Welcome } from "../../generated/ts/codecs/hawser/peer/v1/frames.js";
import type {
  PeerSettings,
  ProtocolConstants,
  StoreConstants,
  TuningSettings,
} from "../../generated/ts/settings/peer.js";
import type { DeadMessage, IncomingMessage, OutgoingMessage, ParkedMessage, Position } from "./messages.js";

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

/** Limits of a sender's channel. */
export type SenderLimits = Pick<PeerSettings, "sendTimeoutMs"> &
  Pick<TuningSettings, "ackTimeoutMs" | "connectWaitMs" | "maxSendQueueMessages" | "maxSendQueueBytes"> &
  Pick<StoreConstants, "insertRows" | "insertBytes" | "shortBacklogRows" | "storeRetryMinMs" | "storeRetryMaxMs"> &
  Pick<ProtocolConstants, "batchMaxMessages" | "batchTargetBytes">;

/** What the listener says of itself and of the channel when it accepts a connection. */
export type ChannelWelcome = Readonly<
  Pick<Welcome, "cursorEpoch" | "cursor" | "backlog" | "credit" | "maxMessageBytes">
>;

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
  writeBatch(delivery: Delivery, topicKey: number, firstNumber: number, messages: Message[]): void;
  /** Writes GoLive to the connection. */
  writeGoLive(): void;
  /**
   * Stores messages, numbered from `firstNumber` on without a gap, in one insert. Answered by `onStored`,
   * `onStoreFailed` or `onFenced`; there is never more than one under way.
   */
  store(firstNumber: number, messages: Message[]): void;
  /** Tells the listener through the database that something is stored for it: best effort. */
  announce(): void;
  /** Reports the outcome of a send, once for each message. */
  settle(message: Message, outcome: SendOutcome): void;
  /** The link state changed. */
  linkChanged(state: LinkState): void;
}

/** How often a message is tried, and when. */
export interface RetryPolicy {
  /** Including the first one; at least 1. */
  readonly attempts: number;
  /** The wait after so many attempts, from 1, in ms. */
  delayMs(attempts: number): number;
}

/** Limits of a listener's channel. */
export interface ListenerLimits
  extends Pick<TuningSettings, "creditBytes" | "busyAfterMs">,
    Pick<ProtocolConstants, "maxCreditGrowth" | "maxAhead" | "messageOverheadBytes">,
    Pick<StoreConstants, "shortBacklogRows" | "parkDelayMs"> {
  /** How a message is tried again. */
  retryOf(message: IncomingMessage): RetryPolicy;
  /** The store is asked for more only while at most this many messages wait for the handler. */
  readonly refillBelow: number;
  /** … and while they take at most so many bytes of memory. */
  readonly refillBelowBytes: number;
  /** So many messages of the channel may be parked. */
  readonly maxParked: number;
  /** … and take so many bytes of memory. */
  readonly maxParkedBytes: number;
  /** Messages without a key have no order: they are handled side by side. */
  readonly unordered: boolean;
  /** The process before may have been killed by a message: see handling.ts. */
  readonly careful: boolean;
}

/** Why a message was not handled. */
interface HandlerFailure {
  readonly errorCode: string;
  readonly errorMessage: string;
  readonly stack?: string | undefined;
  /** When the attempt has failed, in ms since 1970. Without it the dead letter does not mention the attempt. */
  readonly failedAt?: number | undefined;
  /** The payload uncompressed, if it came compressed. */
  readonly plain?: Uint8Array | undefined;
}

/** How a handler ended. */
export type HandlerResult =
  /** With its mark, if that was written with the handler's effects. */
  | { readonly kind: "done"; readonly isMarked?: boolean }
  | ({ readonly kind: "failed" } & HandlerFailure)
  /**
   * The session with Postgres in which the handler ran has ended before the message was done. Perhaps the message ends
   * it: its starts are counted in the store from now on, as after an unclean exit of the process.
   */
  | ({ readonly kind: "sessionEnded" } & HandlerFailure)
  /** Not to be tried again. */
  | ({ readonly kind: "refused" } & HandlerFailure)
  /** The handler was never started, or its end does not count: tried again after a while, as the same attempt. */
  | { readonly kind: "postponed" };

/** What a listener's channel asks of the world. Every call returns at once; answers come back as events. */
export interface ListenerEffects {
  /** Writes an Ack to the channel's connection. */
  writeAck(connection: unknown, ack: Ack): void;
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
  /** Commits the cursor, and what was given to `deadLetter` and `mark` before. Answered by `onCommitted`. */
  commit(cursor: Position): void;
  /** Writes a dead letter, unless the message is done, and that it is done. */
  deadLetter(dead: DeadMessage): void;
  /**
   * Writes a message to what is parked, and that the cursor may pass it; one that is there already with its new attempts and
   * time. Answered by `onParked`. What was given first is written first.
   */
  park(parked: ParkedMessage): void;
  /** Removes a message that was parked, after `deadLetter` if it has become one. Answered by `onUnparked`. */
  unpark(position: Position): void;
  /**
   * Counts, in the store, a start of a parked message that may have ended a process before. Answered by `onParkedCounted`;
   * there is never more than one under way.
   *
   * @param isLast its last start, which is to be alone
   */
  countParked(position: Position, isLast: boolean): void;
  /** Writes that messages beyond the cursor are done. Answered by `onMarked`. */
  mark(done: readonly Position[]): void;
  /**
   * Counts, in the store, a start of the message behind the cursor. Answered by `onAttemptCounted`;
   * there is never more than one under way.
   */
  countAttempt(): void;
  /** `take` has something now. */
  ready(): void;
  /** Nothing of the channel is under way any more, and what is done has its marks, after `giveBack`. Called once. */
  quiet(): void;
  /** An at-most-once message's handler failed: it is gone. */
  dropped(message: IncomingMessage, errorCode: string, errorMessage: string): void;
  /** Numbers that are nowhere: their messages were deleted. */
  gap(epoch: number, first: number, last: number): void;
}
