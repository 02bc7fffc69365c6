/**
 * What became of a step that a lane handed out. Whoever runs steps in Postgres sorts what happened into these.
 */

import type { SavedMessage } from "./step.js";

/** An error of Postgres, as a dead letter keeps it. */
export interface FunctionError {
  /** A SQLSTATE, or a code of ours. */
  readonly code: string;
  readonly message: string;
}

/** The function was run, and nothing is committed. */
export type FunctionOutcome = Extract<Outcome, { readonly kind: "failed" | "timed_out" | "transient" }>;

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
  /** Another process leads: nothing is committed, and nothing more of the lane may be. */
  | { readonly kind: "deposed" };
