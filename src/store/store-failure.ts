/**
 * From an error of node-postgres to a HawserError.
 */
import { HawserError } from "../errors/index.js";
import { isServerError, isTransient, type WriteOutcome } from "../postgres/index.js";

/** SQLSTATE of a session with a database that does not exist. */
const noDatabase = "3D000";

/**
 * Wraps what Postgres or the driver threw. What is an error of Hawser passes unchanged.
 *
 * @param action what could not be done, to follow "could not": "store 3 messages of channel 7"
 * @param outcome of a write: what is known of it
 */
export function storeFailure(action: string, cause: unknown, outcome?: WriteOutcome): HawserError {
  if (cause instanceof HawserError) return cause;
  const hint = isAbsent(cause) ? "Start Postgres at this address, or name another one in the URL" : undefined;
  const options = { cause, hint, ...(outcome === "unknown" && { outcome }) };
  return new HawserError("store_failed", `could not ${action}: ${reasonOf(cause)}`, options);
}

/** The same for many statements: names the one that the server refused, if the server says where in the script it is. */
export function scriptFailure(action: string, script: string, cause: unknown): HawserError {
  const position = isServerError(cause) ? Number(cause.position ?? 0) : 0;
  const statement = script
    .slice(0, position)
    .match(/^(?:CREATE|ALTER|COMMENT ON|GRANT|REVOKE) [^(;\n]+/gm)
    ?.at(-1);
  return storeFailure(statement === undefined ? action : `${action}, at ${statement.trim()}`, cause);
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

/** True if the store failed because Postgres was not heard, or said that it is busy, starting or full: the same may succeed soon. */
export function isTransientFailure(error: unknown): boolean {
  return error instanceof HawserError && isTransient(error.cause);
}

/**
 * True if the server refused a transaction in which it had taken writes before, and would refuse the same again: nothing is
 * committed. A server that takes no writes would have refused the first of them.
 */
export function isRefusedForGood(error: unknown): boolean {
  if (!(error instanceof HawserError) || error.outcome !== undefined) return false;
  const { cause } = error;
  return isServerError(cause) && !isTransient(cause);
}
