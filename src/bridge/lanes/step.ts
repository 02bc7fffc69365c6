/**
 * What a lane asks to be done in Postgres, one step at a time, each in a transaction that first checks that this process
 * leads.
 */
import type { Subscription } from "../bindings.js";
import type { InboundMessage } from "../message.js";
import type { FunctionError } from "./outcome.js";

/** A dead letter that is to be tried again. */
export interface RetryJob {
  /** Its id in `dead_letters`. */
  readonly deadLetterId: bigint;
  readonly message: InboundMessage;
}

/** Run the function for these messages, in this order. */
export interface BatchStep {
  readonly kind: "batch";
  readonly subscription: Subscription;
  readonly messages: readonly InboundMessage[];
}

/** Make a dead letter of a message. After an unknown outcome it is asked for again, so it is to be done once by its id. */
export interface BuryStep {
  readonly kind: "bury";
  readonly subscription: Subscription;
  readonly message: InboundMessage;
  readonly error: FunctionError;
  /** How often the function was started for it, in batches or alone. */
  readonly attempts: number;
}

/** Run the function for a dead letter and delete that, in one transaction. If it is not there any more: committed. */
export interface RetryStep {
  readonly kind: "retry";
  readonly subscription: Subscription;
  readonly job: RetryJob;
}

/** A retried dead letter has failed again and stays: write its new error to it and add the attempts. */
export interface KeepStep {
  readonly kind: "keep";
  readonly subscription: Subscription;
  readonly job: RetryJob;
  readonly error: FunctionError;
  /** How often the function was started by this retry. */
  readonly attempts: number;
}

/** A message of the table of those that a process before had to leave. */
export interface SavedMessage {
  /** Its number there. */
  readonly savedId: bigint;
  readonly message: InboundMessage;
}

/** Delete what is done of a subscription's saved messages, and read the next ones, in order. */
export interface FetchStep {
  readonly kind: "fetch";
  readonly subscription: Subscription;
  /** The numbers of those that are done. */
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

export type Step = BatchStep | BuryStep | RetryStep | KeepStep | FetchStep;
