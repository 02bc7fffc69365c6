/**
 * What an error of Postgres or of its driver says: whether the server answered, what became of a write, and whether the
 * same may succeed soon.
 */
import pg from "pg";

/** What is known of a write that failed: surely not committed, or sent and never answered. */
export type WriteOutcome = "failed" | "unknown";

/** SQLSTATEs that the server gives as it takes the session away: operator intervention, and connection exceptions. */
const sessionEnded = /^(57P0[1-5]|08...)$/;

/** SQLSTATE of a write on a server that takes none: a standby, or a primary made read-only. */
const readOnly = "25006";

/** True if the server itself answered with `error`. */
export function isServerError(error: unknown): error is pg.DatabaseError {
  return error instanceof pg.DatabaseError;
}

/**
 * What an error means for the one statement (or COMMIT) that was sent when it came.
 *
 * An ordinary ERROR aborts the transaction, so nothing is committed. A FATAL one ends the session, and may come after
 * the commit: a backend that is terminated while it waits for a synchronous standby has committed already. Anything
 * that is not the server's answer (a reset socket, our own timeout) says nothing.
 */
export function outcomeOf(error: unknown): WriteOutcome {
  if (!isServerError(error)) return "unknown";
  const fatal = error.severity === "FATAL" || error.severity === "PANIC" || sessionEnded.test(error.code ?? "");
  return fatal ? "unknown" : "failed";
}

/** Classes of SQLSTATE that pass: connection, rolled back, out of resources, lock not available, operator intervention. */
const passing = /^(08|40|53|55P03|57)/;

/** True if the same again may succeed soon: the server was not heard, or said that it is busy, starting or full. */
export function isTransient(error: unknown): boolean {
  return !isServerError(error) || passing.test(error.code ?? "");
}

/** True if the connection should not be used again after `error`. */
export function spoilsConnection(error: unknown): boolean {
  return outcomeOf(error) === "unknown" || (isServerError(error) && error.code === readOnly);
}
