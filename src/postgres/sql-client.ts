/**
 * Clients of users: statements in the transaction that the user has begun, with whatever library.
 */
import { HawserError } from "../errors/index.js";

/**
 * A client of the user's: a Client, PoolClient or Pool of node-postgres, the `client` of a transactional handler, or what
 * {@link fromDrizzle}, {@link fromKysely}, {@link fromKnex} and {@link fromPrisma} make of a transaction.
 *
 * `query` runs one statement with the parameters `$1`, `$2`, …, and resolves with its rows, or with an object that has them
 * as `rows`; each row is an object. A client that is in no transaction, such as a Pool, commits each statement at once.
 */
export interface SqlClient {
  query(text: string, values: unknown[]): PromiseLike<unknown>;
}

/** The rows of a result of {@link SqlClient.query}. @throws HawserError `invalid_argument` if it has none */
export function rowsOf(result: unknown): Record<string, unknown>[] {
  const rows = Array.isArray(result) ? result : (result as { rows?: unknown } | null | undefined)?.rows;
  if (Array.isArray(rows) && rows.every(isObject)) return rows;
  throw new HawserError(
    "invalid_argument",
    "query() of the client resolved without the rows; let it resolve with them, or with an object that has them as rows, " +
      "and let each row be an object",
  );
}

function isObject(row: unknown): boolean {
  return typeof row === "object" && row !== null && !Array.isArray(row);
}

/** An error of Postgres, as far as drivers and the libraries above them pass it on. */
export interface ErrorFields {
  /** The SQLSTATE, where Postgres has answered. */
  readonly code?: unknown;
  readonly message?: string;
  readonly detail?: unknown;
  readonly hint?: unknown;
  readonly routine?: unknown;
}

/** The error of Postgres in what a {@link SqlClient} rejected with, which some libraries wrap; itself where there is none. */
export function postgresErrorOf(error: unknown): ErrorFields {
  const { cause, meta } = (error ?? {}) as {
    /** Set by Drizzle. */
    readonly cause?: unknown;
    /** Set by Prisma. */
    readonly meta?: { readonly driverAdapterError?: { readonly cause?: unknown } };
  };
  const wrapped = meta?.driverAdapterError?.cause as (ErrorFields & OriginalError) | null | undefined;
  // Prisma has its own words for some errors, without `code`.
  if (wrapped?.originalCode !== undefined) {
    return { ...wrapped, code: wrapped.originalCode, message: wrapped.originalMessage ?? "" };
  }
  const all = [wrapped, cause] as readonly (ErrorFields | null | undefined)[];
  return all.find((each) => typeof each?.code === "string") ?? ((error ?? {}) as ErrorFields);
}

interface OriginalError {
  readonly originalCode?: string;
  readonly originalMessage?: string;
}
