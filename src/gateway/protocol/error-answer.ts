/**
 * From what was thrown to what the caller in SQL is told.
 */
import { errorTable, HawserError } from "../../errors/index.js";
import type { ErrorAnswer } from "./answer.js";

/**
 * The answer for an error: of a `HawserError` its code's SQLSTATE, its message, its detail, and its hint or else the
 * remedy of its code; anything else is `XX000` with its message. Never a stack or a cause.
 */
export function errorAnswerOf(error: unknown): ErrorAnswer {
  if (HawserError.is(error)) {
    const { entry, message, detail, hint } = error;
    return { kind: "error", sqlstate: entry.sqlstate, message, detail, hint: hint ?? entry.remedy };
  }
  const message = error instanceof Error ? error.message : String(error);
  return {
    kind: "error",
    sqlstate: errorTable.internal.sqlstate,
    message: `internal error of the gateway: ${message}`,
  };
}

/** Whether the error is a defect of ours, which belongs in the log, too. */
export function isDefect(error: unknown): boolean {
  return !HawserError.is(error) || error.code === "internal";
}
