/** Results of handler calls, as the channel and the queue get them. */

import { errorTable } from "../../../generated/ts/errors/errors.js";
import { errorMessageOf, HawserError, RetryAfter } from "../../foundation/errors/index.js";
import type { HandlerResult } from "../channel/index.js";

/** The handler has returned. */
export const done: HandlerResult = { kind: "done" };
/** The handler's transaction is committed, which has also completed the message. */
export const marked: HandlerResult = { kind: "done", isMarked: true };
/** The attempt does not count: the message is handled again. */
export const retryLater: HandlerResult = { kind: "postponed" };
/** The handler was cut off, because the peer has stopped. The attempt does not count. */
export const cutOff: HandlerResult = { kind: "postponed" };

/** Adds the uncompressed payload to a result that becomes a dead letter. */
export function withPlain(result: HandlerResult, plain: Uint8Array): HandlerResult {
  return "errorCode" in result ? { ...result, plain } : result;
}

/** Result that makes the message a dead letter without a retry. */
export function refused(errorCode: HawserError["code"], errorMessage: string): HandlerResult {
  return { kind: "refused", errorCode, errorMessage, failedAt: Date.now() };
}

/** Result for a handler whose Postgres session ended: the message itself may be the cause. */
export function sessionEnded(how: string): Extract<HandlerResult, { kind: "sessionEnded" }> {
  const errorCode: HawserError["code"] = "handler_crashed";
  const errorMessage = `the Postgres session ended while its handler was running: ${how}`;
  return { kind: "sessionEnded", errorCode, errorMessage, failedAt: Date.now() };
}

/**
 * Result for an error that the handler threw.
 *
 * @param expiresAt end of the message's time to live, in ms since 1970. A retry that the handler wants later than that is due
 * right behind it, when the message has expired
 */
export function failed(
  error: unknown,
  expiresAt: number,
): Extract<HandlerResult, { kind: "failed" | "refused" | "deferred" }> {
  const { code: errorCode, message: errorMessage } = failureOf(error);
  const now = Date.now();
  const failure = { errorCode, errorMessage, stack: stackOf(error) };
  const wanted = retryWantedBy(error);
  if (wanted === undefined)
    return { kind: isFinal(error, errorCode) ? "refused" : "failed", ...failure, failedAt: now };
  const delayMs = Math.max(0, (expiresAt < wanted.at ? expiresAt + 1 : wanted.at) - now);
  return wanted.countsAttempt
    ? { kind: "failed", ...failure, failedAt: now, delayMs }
    : { kind: "deferred", ...failure, delayMs };
}

/** Time of the retry that a handler wants, in ms since 1970; undefined for any error but a {@link RetryAfter}. */
function retryWantedBy(error: unknown): { readonly at: number; readonly countsAttempt: boolean } | undefined {
  try {
    if (error instanceof RetryAfter) return { at: error.retryAt.getTime(), countsAttempt: error.countsAttempt };
  } catch {
    // As in failureOf.
  }
  return undefined;
}

/** Error codes of handlers for which a retry cannot help. */
const finalCodes: ReadonlySet<string> = new Set([
  "unsubscribed",
  "handler_crashed",
  "invalid_message",
  "rejected",
  "expired",
  // Hawser refused what the handler gave it, such as a progress that is too long: the same call is refused again.
  "invalid_argument",
  "payload_too_large",
]);

/** True if a retry cannot help. A reply to a message without a sender has no recipient at any attempt. */
function isFinal(error: unknown, code: HawserError["code"]): boolean {
  return finalCodes.has(code) || (code === "no_listener" && !(error as HawserError).retryable);
}

/** Code and message for an error that a handler threw, or that replaced its call. */
export function failureOf(error: unknown): { readonly code: HawserError["code"]; readonly message: string } {
  try {
    // Another installed version of the package may have codes that this one does not know.
    if (error instanceof HawserError && Object.hasOwn(errorTable, error.code)) {
      return { code: error.code, message: String(error.message) };
    }
    if (error instanceof Error) return { code: "handler_failed", message: `${error.name}: ${error.message}` };
  } catch {
    // Handlers can throw any value, including objects whose properties throw.
  }
  return { code: "handler_failed", message: errorMessageOf(error) };
}

function stackOf(error: unknown): string | undefined {
  try {
    return error instanceof Error && error.stack ? String(error.stack) : undefined;
  } catch {
    return undefined;
  }
}
