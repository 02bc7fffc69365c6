/** Conversion of node-postgres errors to HawserError. */
import { errorMessageOf, HawserError } from "../../foundation/errors/index.js";
import {
  filteredTable,
  isFiltered,
  isServerError,
  isTransient,
  messageWithRemedy,
  unfilteredSql,
  type WriteOutcome,
} from "../../foundation/postgres/index.js";

/** SQLSTATE for a connection to a database that does not exist. */
const databaseMissing = "3D000";
/** SQLSTATE for a statement in a transaction that an earlier error has aborted. */
const transactionAborted = "25P02";

/**
 * Wraps an error of Postgres or of the driver. A HawserError passes unchanged.
 *
 * @param action the failed action, to follow "could not": "store 3 messages of channel 7"
 * @param outcome outcome of a write, as far as it is known
 */
export function storeFailure(action: string, cause: unknown, outcome?: WriteOutcome): HawserError {
  if (cause instanceof HawserError) return cause;
  const hidden = filteredTable(cause);
  const refusal = isServerError(cause) ? refusedLogins[cause.code?.slice(0, 2) ?? ""] : undefined;
  const unreachable = isUnreachable(cause)
    ? "Start Postgres at this address, or name another one in the URL"
    : undefined;
  const remedy = hidden === undefined ? (refusal ?? unreachable) : unfilteredSql(hidden);
  const retryable = refusal === undefined ? undefined : false;
  const options = { cause, remedy, retryable, ...(outcome === "unknown" && { outcome }) };
  return new HawserError("store_failed", `could not ${action}: ${reasonOf(cause)}`, options);
}

/** Remedies of logins that Postgres refuses, by the class of the SQLSTATE. The same login is refused again. */
const refusedLogins: Readonly<Record<string, string>> = {
  "28": "Repair the user or the password in the URL, or an entry in pg_hba.conf of the server",
  "3D": "Create the database, or name another one in the URL",
};

/**
 * Like {@link storeFailure} for a script of many statements. Names the failed statement if the server reports its
 * position.
 */
export function scriptFailure(action: string, script: string, cause: unknown): HawserError {
  const position = isServerError(cause) ? Number(cause.position ?? 0) : 0;
  const statement = script
    .slice(0, position)
    .match(/^(?:CREATE|ALTER|COMMENT ON|GRANT|REVOKE) [^(;\n]+/gm)
    ?.at(-1);
  return storeFailure(statement === undefined ? action : `${action}, at ${statement.trim()}`, cause);
}

/** Error codes of the network when no Postgres answers at the address. */
const unreachableCodes = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH", "ENOENT"]);

function isUnreachable(cause: unknown): boolean {
  if (cause instanceof AggregateError) return cause.errors.every(isUnreachable);
  return !isServerError(cause) && unreachableCodes.has((cause as NodeJS.ErrnoException | undefined)?.code ?? "");
}

/** Describes an error in one line. Node creates AggregateError without a message if several addresses fail. */
function reasonOf(cause: unknown): string {
  if (cause instanceof AggregateError) return cause.errors.map(reasonOf).join(", ");
  if (!(cause instanceof Error)) return errorMessageOf(cause);
  if (!isServerError(cause)) return cause.message || cause.name;
  if (cause.code === databaseMissing)
    return `${cause.message}; create it (CREATE DATABASE), or name another one in the URL`;
  if (cause.code === transactionAborted)
    return `${cause.message}; an earlier statement failed, and its error was caught: let it throw, or undo the statement with SAVEPOINT and ROLLBACK TO SAVEPOINT`;
  return `${messageWithRemedy(cause) || cause.name}${cause.hint ? ` (${cause.hint})` : ""}`;
}

/** Returns true if Postgres was unreachable, busy, starting or out of resources, so that a retry may succeed soon. */
export function isTransientFailure(error: unknown): boolean {
  return isStoreFailure(error) && isTransient(error.cause);
}

/**
 * Returns true if the server refused a transaction after it had accepted writes in it, and would refuse it again:
 * nothing is committed. A read-only server would have refused the first write. Row security that hides rows is no fault of
 * the transaction.
 */
export function isRefusedForGood(error: unknown): boolean {
  if (!isStoreFailure(error) || error.outcome !== undefined) return false;
  const { cause } = error;
  return isServerError(cause) && !isTransient(cause) && !isFiltered(cause);
}

/** Returns true for an error with the code `store_failed`, as {@link storeFailure} creates. */
export function isStoreFailure(error: unknown): error is HawserError {
  return error instanceof HawserError && error.code === "store_failed";
}
