/**
 * Requests to responders: what runs their functions, behind an interface, and the answers that are errors.
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
  /** What the function returned is longer than any message of NATS: Postgres has kept it. */
  | { readonly kind: "too_large"; readonly bytes: number }
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

/**
 * An answer that is an error: an empty body, and headers with a number like those of HTTP and a line of words (ADR-32).
 *
 * The words tell the SQLSTATE and the message of a function's error, which is what the function's author wrote for its
 * callers, but no detail, no hint and no context: those may show rows and code.
 */
export interface ErrorReply {
  /** 400: the request cannot be understood. 500: the function failed, or its answer cannot be sent. 503: it was not run, or Postgres is away. 504: out of time. */
  readonly status: 400 | 500 | 503 | 504;
  /** For the requester. */
  readonly words: string;
  /** For readers of statistics and logs: without what a function says of a request. */
  readonly summary: string;
}

/** Connection failures, shut down or starting servers, no connection left. */
const awayCodes = /^(08...|57P0[123]|53300)$/;

/** The function, or Postgres on the way to it, failed. */
export function failureReply({ code, message, timedOut }: RequestOutcome & { readonly kind: "failed" }): ErrorReply {
  const status = timedOut ? 504 : awayCodes.test(code) ? 503 : 500;
  const summary = `SQLSTATE ${code}`;
  return { status, words: `${summary}: ${message}`, summary };
}

/** There are as many requests waiting as may. */
export const busyReply = notRun(503, "busy: too many requests wait for this responder; try again later");

/** The responder is no more, or another one has taken its place. */
export const removedReply = notRun(503, "the responder was removed or replaced before it could answer");

/** The process ends with the request still waiting. */
export const stoppingReply = notRun(503, "the process that answers stops; the function was not run");

/** The process ends with the request's function running. */
export const interruptedReply = notRun(503, "the process that answers stops; what the function did may last or not");

/** The runner failed where it must not. */
export const defectReply = notRun(500, "the responder failed by a defect, which its log tells");

/** It was not its turn in time. */
export function waitedTooLongReply(timeoutMs: number): ErrorReply {
  return notRun(504, `waited ${timeoutMs} ms for its turn; the function was not run`);
}

/** The request has headers that cannot be read. @param problem why */
export function unreadableReply(problem: string): ErrorReply {
  return notRun(400, `the headers of the request cannot be read: ${problem}; the function was not run`);
}

/** The answer is larger than the server lets through. */
export function tooLargeReply(bytes: number, maxPayload: number): ErrorReply {
  return notRun(500, `the answer has ${bytes} bytes, and the NATS server takes at most ${maxPayload} (max_payload)`);
}

function notRun(status: ErrorReply["status"], words: string): ErrorReply {
  return { status, words, summary: words };
}
