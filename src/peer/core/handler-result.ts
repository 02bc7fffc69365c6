/** Results of handler calls, as the channel and the queue get them. */

import { errorTable } from "../../../generated/ts/errors/errors.js";
import type { HandlerResult } from "../../channel/index.js";
import { errorMessageOf, HawserError } from "../../errors/index.js";

/** The handler has returned. */
export const done: HandlerResult = { kind: "done" };
/** The handler's transaction is committed, which has also completed the message. */
export const marked: HandlerResult = { kind: "done", isMarked: true };
/** The attempt does not count: the message is handled again. */
export const retryLater: HandlerResult = { kind: "postponed" };

/** Adds the uncompressed payload to a result that becomes a dead letter. */
export function withPlain(result: HandlerResult, plain: Uint8Array): HandlerResult {
  return "errorCode" in result ? { ...result, plain } : result;
}

/** Result that makes the message a dead letter without a retry. */
export function refused(errorCode: HawserError["code"], errorMessage: string): HandlerResult {
  return { kind: "refused", errorCode, errorMessage, failedAt: Date.now() };
}

/** Result for a handler whose Postgres session ended: the message itself may be the cause. */
export function sessionEnded(maxAttempts: number, how: string): Extract<HandlerResult, { kind: "sessionEnded" }> {
  const errorCode: HawserError["code"] = "handler_crashed";
  const errorMessage = `the Postgres session ended while its handler was running, ${maxAttempts} times: ${how}`;
  return { kind: "sessionEnded", errorCode, errorMessage, failedAt: Date.now() };
}

/** Result for an error that the handler threw. */
export function failed(error: unknown): Extract<HandlerResult, { kind: "failed" | "refused" }> {
  const { code: errorCode, message: errorMessage } = failureOf(error);
  const kind = finalCodes.has(errorCode) ? "refused" : "failed";
  return { kind, errorCode, errorMessage, stack: stackOf(error), failedAt: Date.now() };
}

/** Error codes of handlers for which a retry cannot help. */
const finalCodes: ReadonlySet<string> = new Set([
  "unsubscribed",
  "handler_crashed",
  "invalid_message",
  "rejected",
  "expired",
]);

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
