/**
 * What answers a request: the function in Postgres, behind an interface.
 */
import type { Responder } from "../bindings.js";

/** A request that waits for its answer. */
export interface ResponderRequest {
  /** What it was sent to: the responder's subject, or one that its wildcards take in. */
  readonly subject: string;
  /** Where the answer goes. Never empty. */
  readonly reply: string;
  /** A copy of its own. Never changed. */
  readonly payload: Uint8Array;
}

/** What became of a function. */
export type RequestOutcome =
  /** What the function returned; for NULL nothing. */
  | { readonly kind: "answer"; readonly payload: Uint8Array }
  /** The responder was removed or replaced before its function ran, or while it ran: then Postgres has rolled it back. */
  | { readonly kind: "removed" }
  /** @property code its SQLSTATE; `timedOut`: it ran longer than a responder's function may */
  | { readonly kind: "failed"; readonly code: string; readonly message: string; readonly timedOut: boolean };

/** Runs one request's function in Postgres. */
export interface RequestRunner {
  /**
   * Called for no more requests at once than the service was told. Settles within the time that a responder's function
   * has, and soon once the signal is aborted: nobody waits for the outcome then. What it rejects with counts as a defect.
   */
  run(responder: Responder, request: ResponderRequest, signal: AbortSignal): Promise<RequestOutcome>;
}
