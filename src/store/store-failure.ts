/**
 * From an error of node-postgres to a StoreError, and what an error says about the fate of a write.
 */
import pg from "pg";
import { StoreError } from "../errors/index.js";

/** What is known of a write that failed: surely not committed, or sent and never answered. */
export type WriteOutcome = "failed" | "unknown";

/** SQLSTATEs that the server gives as it takes the session away: operator intervention, and connection exceptions. */
const sessionEnded = /^(57P0[1-5]|08...)$/;

/** SQLSTATE of a write on a server that takes none: a standby, or a primary made read-only. */
const readOnly = "25006";

/** SQLSTATE of a session with a database that does not exist. */
const noDatabase = "3D000";

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

/**
 * Wraps what Postgres or the driver threw. A StoreError passes unchanged.
 *
 * @param action what could not be done, to follow "could not": "store 3 messages of channel 7"
 * @param outcome of a write: what is known of it
 */
export function storeFailure(action: string, cause: unknown, outcome?: WriteOutcome): StoreError {
  if (cause instanceof StoreError) return cause;
  const hint = isAbsent(cause) ? "Start Postgres at this address, or name another one in the URL" : undefined;
  const options = { cause, hint, ...(outcome === "unknown" && { outcome }) };
  return new StoreError("store_failed", `could not ${action}: ${reasonOf(cause)}`, options);
}

/** What the network says where no Postgres is. */
const absent = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH", "ENOENT"]);

function isAbsent(cause: unknown): boolean {
  if (cause instanceof AggregateError) return cause.errors.every(isAbsent);
  return !isServerError(cause) && absent.has((cause as NodeJS.ErrnoException | undefined)?.code ?? "");
}

/** One line about an error, also for those that Node makes without a message (several addresses, none answered). */
function reasonOf(cause: unknown): string {
  if (cause instanceof AggregateError) return cause.errors.map(reasonOf).join(", ");
  if (!(cause instanceof Error)) return String(cause);
  if (!isServerError(cause)) return cause.message || cause.name;
  if (cause.code === noDatabase) return `${cause.message}; make it (CREATE DATABASE), or name another one in the URL`;
  return `${cause.message || cause.name}${cause.hint ? ` (${cause.hint})` : ""}`;
}

/**
 * True if the server refused a transaction in which it had taken writes before, and would refuse the same again: nothing is
 * committed. A server that takes no writes would have refused the first of them.
 */
export function isRefusedForGood(error: unknown): boolean {
  if (!StoreError.is(error) || error.outcome !== undefined) return false;
  const { cause } = error;
  return isServerError(cause) && !isTransient(cause);
}
