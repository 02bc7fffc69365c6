/**
 * Requests to responders: the interface that runs their functions, and the error replies.
 */
import type { TraceContext } from "../../../foundation/runtime/index.js";
import type { Responder } from "../bindings.js";

/** A request to be answered. */
export interface ResponderRequest {
  /** Subject of the request, which matches the responder's subject. */
  readonly subject: string;
  /** Reply subject; never empty. */
  readonly reply: string;
  /** Immutable copy. */
  readonly payload: Uint8Array;
  /** Trace of the request, which the function continues. */
  readonly trace?: TraceContext | undefined;
}

/** Outcome of a function. */
export type RequestOutcome =
  /** Result of the function; empty for NULL. */
  | { readonly kind: "answer"; readonly payload: Uint8Array }
  /** The result exceeds the maximum size of NATS messages, and was not read from Postgres. */
  | { readonly kind: "too_large"; readonly bytes: number }
  /** The responder was removed or replaced before its function ran, or while it ran, which rolled it back. */
  | { readonly kind: "removed" }
  /** @property code SQLSTATE of the error @property timedOut true if the function exceeded its time limit */
  | { readonly kind: "failed"; readonly code: string; readonly message: string; readonly timedOut: boolean };

/** Runs the function of one request in Postgres. */
export interface RequestRunner {
  /**
   * Runs the function. The caller limits the number of concurrent calls. Settles within the time limit of a function. A
   * rejection is a defect.
   */
  run(responder: Responder, request: ResponderRequest): Promise<RequestOutcome>;
}

/**
 * Error reply: an empty body, and headers with a text and a status code like that of HTTP (ADR-32 of NATS).
 *
 * The text contains the SQLSTATE and the message of the function's error, because the author of a function writes its
 * messages for callers. Detail, hint and context are left out: they may reveal rows and code.
 */
export interface ErrorReply {
  /**
   * 400: the request is malformed. 500: the function failed, or its answer cannot be sent. 503: the function was not
   * run, or Postgres is unavailable. 504: timeout.
   */
  readonly status: 400 | 500 | 503 | 504;
  /** Text for the requester. */
  readonly text: string;
  /** Text for statistics and logs, without the function's error message. */
  readonly summary: string;
}

/** SQLSTATEs of connection failures, of servers that are starting or shut down, and of the connection limit. */
const unavailableCodes = /^(08...|57P0[123]|53300)$/;

/** Reply for a failure of the function, or of Postgres. */
export function failureReply({ code, message, timedOut }: RequestOutcome & { readonly kind: "failed" }): ErrorReply {
  const status = timedOut ? 504 : unavailableCodes.test(code) ? 503 : 500;
  const summary = `SQLSTATE ${code}`;
  return { status, text: `${summary}: ${message}`, summary };
}

/** Reply when too many requests are waiting. */
export const busyReply = errorReply(503, "busy: too many requests wait for this responder; try again later");

/** Reply when the responder was removed or replaced. */
export const removedReply = errorReply(503, "the responder was removed or replaced before it could answer");

/** Reply to a waiting request when the process shuts down. */
export const stoppingReply = errorReply(503, "the answering process is shutting down; the function was not run");

/** Reply to a running request when the process shuts down. */
export const interruptedReply = errorReply(
  503,
  "the answering process is shutting down; the function may or may not have taken effect",
);

/** Reply when the runner rejected, which is a defect. */
export const defectReply = errorReply(500, "internal error of the responder; its log has the details");

/** Reply after the deadline of a waiting request. */
export function waitedTooLongReply(timeoutMs: number): ErrorReply {
  return errorReply(504, `the request waited ${timeoutMs} ms in the queue; the function was not run`);
}

/** Reply to a request whose headers cannot be read. @param problem reason */
export function unreadableReply(problem: string): ErrorReply {
  return errorReply(400, `the headers of the request cannot be read: ${problem}; the function was not run`);
}

/** Reply when the answer exceeds the server's limit. */
export function tooLargeReply(bytes: number, maxPayload: number): ErrorReply {
  return errorReply(
    500,
    `the answer has ${bytes} bytes, and the NATS server accepts at most ${maxPayload} (max_payload)`,
  );
}

function errorReply(status: ErrorReply["status"], text: string): ErrorReply {
  return { status, text, summary: text };
}
