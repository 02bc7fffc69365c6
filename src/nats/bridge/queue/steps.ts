/**
 * Steps that a queue requests in Postgres, and their outcomes. Each step runs in a transaction that first checks that
 * this process is the leader; a batch of a stream first checks that no other process has started to read the stream.
 */
import type { Subscription } from "../bindings.js";
import type { InboundMessage } from "../message.js";
import type { ByteBudget, Discards } from "./memory.js";

/** Runs the function for these messages, in order. */
export interface BatchStep {
  readonly kind: "batch";
  readonly subscription: Subscription;
  readonly messages: readonly InboundMessage[];
  /** Ids of those first messages that are in the table of saved messages, which the same transaction deletes. */
  readonly savedIds: readonly bigint[];
  /** Ids of the messages in the queue, which the same transaction deletes. Default: they are not in it. */
  readonly queued?: readonly bigint[];
}

/** Writes a dead letter. The step is repeated after an unknown outcome, so it must be idempotent by the message's id. */
export interface DeadLetterStep {
  readonly kind: "dead_letter";
  readonly subscription: Subscription;
  readonly message: InboundMessage;
  /** Id of the saved message, which the same transaction deletes; undefined if it is not saved. */
  readonly savedId?: bigint | undefined;
  readonly error: FunctionError;
  /** Number of times the function was started for the message, in batches or alone. */
  readonly attempts: number;
}

/** A message from the table of saved messages. */
export interface SavedMessage {
  /** Id in that table. */
  readonly savedId: bigint;
  readonly message: InboundMessage;
}

/** Reads the next saved messages of a subscription, in order. */
export interface FetchStep {
  readonly kind: "fetch";
  readonly subscription: Subscription;
  /** Ids to delete: messages of a batch that was committed while they were being saved. */
  readonly done: readonly bigint[];
}

/**
 * Appends messages to the saved messages of the subscription, because memory is nearly full. Can run at the same time
 * as another step.
 */
export interface SpillStep {
  readonly kind: "spill";
  readonly subscription: Subscription;
  readonly messages: readonly InboundMessage[];
}

export type Step = BatchStep | DeadLetterStep | FetchStep;

/** Error as a dead letter stores it. */
export interface FunctionError {
  /** SQLSTATE, or an error code of Hawser. */
  readonly code: string;
  readonly message: string;
}

/** Outcomes of a function whose transaction was rolled back. */
export type FunctionOutcome = Extract<Outcome, { readonly kind: "failed" | "timed_out" | "transient" }>;

/** Result of a step, as classified by the code that ran it in Postgres. */
export type Outcome =
  /** COMMIT was confirmed. */
  | { readonly kind: "committed"; readonly durationMs: number }
  /** COMMIT was confirmed for the first messages of a batch. Messages behind those of `failed` were not run. */
  | {
      readonly kind: "partly";
      readonly committed: number;
      readonly durationMs: number;
      /** Outcome of the messages that follow, which ran together; undefined if none ran. */
      readonly failed?: { readonly count: number; readonly outcome: FunctionOutcome };
    }
  /** Messages that a fetch has read; empty if there are no more. */
  | { readonly kind: "fetched"; readonly saved: readonly SavedMessage[] }
  /** The function raised an error, or COMMIT violated a constraint: nothing is committed, because of the messages. */
  | { readonly kind: "failed"; readonly error: FunctionError }
  /**
   * The statement timeout cancelled the batch, and nothing is committed. A cancellation by an operator is `transient`.
   */
  | { readonly kind: "timed_out"; readonly error: FunctionError }
  /**
   * Nothing is committed, for a reason that no message causes: deadlock, serialization failure, out of memory or disk.
   */
  | { readonly kind: "transient"; readonly error: FunctionError }
  /**
   * The session ended while the step ran, perhaps after its commit, and a new session to the same server could be
   * opened at once, so the function may have ended it. If Postgres stopped or crashed, the outcome is `unavailable`.
   */
  | { readonly kind: "session_lost"; readonly message: string }
  /** Postgres was unreachable or stopped during the step; no message is the cause. */
  | { readonly kind: "unavailable" }
  /**
   * Another process is the leader, or the position of the stream was read anew. Nothing is committed, and this queue
   * must run nothing more.
   */
  | { readonly kind: "deposed" }
  /** Messages of the queue are not in it any more. Nothing is committed. */
  | { readonly kind: "gone" };

/** Settings of the queues of a process. Tests give others. */
export const queueDefaults = {
  /** Maximum number of messages in a batch. */
  maxBatchMessages: 1_000,
  /** Maximum size of a batch; a single message always fits. */
  maxBatchBytes: 8 * 1024 * 1024,
  /** The expected duration to which batches are limited. */
  batchTargetMs: 1_000,
  /** The pause after a batch failed for a reason outside its messages; it doubles. */
  batchPauseMinMs: 5,
  /** The longest of these pauses. */
  batchPauseMaxMs: 5_000,
};

/** Settings of all queues of a process. */
export interface QueueSettings extends Readonly<typeof queueDefaults> {
  /** Error code of the dead letter of a message that lost two sessions while it ran alone. */
  readonly sessionLostCode: string;
  /** Random number from 0 to 1, which spreads the ends of pauses. */
  readonly random: () => number;
}

/** State that all queues of a process share. */
export interface QueueContext {
  readonly settings: QueueSettings;
  readonly budget: ByteBudget;
  readonly discards: Discards;
}

/** Totals of all queues of a subscription. */
export interface QueueTotals {
  committed: number;
  deadLettered: number;
  /** Steps that reached Postgres, successful or not. */
  transactions: number;
  /** Batches that were halved. */
  bisections: number;
}
