/**
 * What a queue asks to be done in Postgres, one step at a time, each in a transaction that first checks that this process
 * leads.
 */
import type { BridgeConstants } from "../../../generated/ts/settings/nats.js";
import type { Subscription } from "../bindings.js";
import type { InboundMessage } from "../message.js";
import type { ByteBudget, Discards } from "./memory.js";

/**
 * Run the function for these messages, in this order; or for a dead letter alone, which is deleted in the same transaction.
 * If that is not there any more: committed.
 */
export interface BatchStep {
  readonly kind: "batch";
  readonly subscription: Subscription;
  readonly messages: readonly InboundMessage[];
  /** Numbers of the first of them in the table, which are deleted in the transaction that runs them. */
  readonly savedIds: readonly bigint[];
}

/**
 * Make a dead letter of a message, or write its new error to one that has failed again, and add the attempts. After an unknown
 * outcome it is asked for again, so it is to be done once by its id.
 */
export interface DeadLetterStep {
  readonly kind: "dead_letter";
  readonly subscription: Subscription;
  readonly message: InboundMessage;
  /** Its number in the table, which is deleted with it; undefined: it is not there. */
  readonly savedId?: bigint | undefined;
  readonly error: FunctionError;
  /** How often the function was started for it, in batches or alone. */
  readonly attempts: number;
}

/** A message of the table of those that a process before had to leave. */
export interface SavedMessage {
  /** Its number there. */
  readonly savedId: bigint;
  readonly message: InboundMessage;
}

/** A dead letter that is to be handled again, and the subscription whose function failed. */
export interface RequestedRetry {
  readonly subscriptionId: bigint;
  readonly message: InboundMessage;
}

/** Read the next saved messages of a subscription, in order. */
export interface FetchStep {
  readonly kind: "fetch";
  readonly subscription: Subscription;
  /** Numbers to delete: messages of a batch that was committed while they were being written to the table. */
  readonly done: readonly bigint[];
}

/**
 * Write messages to the table, behind all that it has of the subscription, because there is little memory left. It may be
 * out beside another step.
 */
export interface SpillStep {
  readonly kind: "spill";
  readonly subscription: Subscription;
  readonly messages: readonly InboundMessage[];
}

export type Step = BatchStep | DeadLetterStep | FetchStep;

/** An error of Postgres, as a dead letter keeps it. */
export interface FunctionError {
  /** A SQLSTATE, or a code of ours. */
  readonly code: string;
  readonly message: string;
}

/** The function was run, and nothing is committed. */
export type FunctionOutcome = Extract<Outcome, { readonly kind: "failed" | "timed_out" | "transient" }>;

/** What became of a step that a queue handed out. What runs steps in Postgres sorts what happened into these. */
export type Outcome =
  /** COMMIT was confirmed. */
  | { readonly kind: "committed"; readonly durationMs: number }
  /** COMMIT was confirmed, for the messages at the front of a batch. Those behind the failed ones were not tried. */
  | {
      readonly kind: "partly";
      readonly committed: number;
      readonly durationMs: number;
      /** What became of those that follow, which were tried together; undefined: they were not tried. */
      readonly failed?: { readonly count: number; readonly outcome: FunctionOutcome };
    }
  /** What a fetch has read: none, if there is nothing more. */
  | { readonly kind: "fetched"; readonly saved: readonly SavedMessage[] }
  /** The function raised an error, or a constraint was broken at COMMIT: nothing is committed, by fault of the messages. */
  | { readonly kind: "failed"; readonly error: FunctionError }
  /** The statement timeout ended it: nothing is committed. Only that; a cancellation by an operator is `transient`. */
  | { readonly kind: "timed_out"; readonly error: FunctionError }
  /** Nothing is committed, and no message is to blame: a deadlock, a serialization failure, no memory, no disk space. */
  | { readonly kind: "transient"; readonly error: FunctionError }
  /**
   * The session ended while the step ran, perhaps after its commit, and a new one to the same server was had at once: the
   * function may have ended it. When Postgres itself stopped or crashed and came back, it is `unavailable` instead.
   */
  | { readonly kind: "session_lost"; readonly message: string }
  /** Postgres cannot be reached, or went away with the step: no message is to blame. */
  | { readonly kind: "unavailable" }
  /** Another process leads: nothing is committed, and nothing more of the queue may be. */
  | { readonly kind: "deposed" };

/** What queues go by, the same for all queues of a process. */
export interface QueueSettings
  extends Pick<
    BridgeConstants,
    | "maxBatchMessages"
    | "maxBatchBytes"
    | "batchTargetMs"
    | "batchPauseMinMs"
    | "batchPauseMaxMs"
    | "deadLetterRetryTries"
  > {
  /** The error code of what loses its session while it is alone. */
  readonly sessionLostCode: string;
  /** 0 to 1, so that queues that paused together do not all go on together. */
  readonly random: () => number;
}

/** What all queues of a process share. */
export interface QueueContext {
  readonly settings: QueueSettings;
  readonly budget: ByteBudget;
  readonly discards: Discards;
  /** All dead letters that a queue was to try again are done, or have failed again. */
  readonly onRetried: () => void;
}

/** What the queues of a subscription have done. */
export interface QueueTotals {
  committed: number;
  deadLettered: number;
  /** Steps that reached Postgres, whatever became of them. */
  transactions: number;
  /** Batches that were halved. */
  bisections: number;
}
