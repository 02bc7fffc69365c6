/** Database clients of users: statements in a transaction of any library. */
import { HawserError } from "../errors/index.js";

/**
 * Database client of a user: a Client, PoolClient or Pool of node-postgres, the `client` of a transactional handler, or
 * the result of {@link fromDrizzle}, {@link fromKysely}, {@link fromKnex} or {@link fromPrisma} for a transaction.
 *
 * `query` runs one statement with the parameters `$1`, `$2`, … and resolves with its rows, or with an object that has
 * them as `rows`; each row is an object. Without a transaction, as with a Pool, each statement is committed at once.
 */
export interface SqlClient {
  query(text: string, values: unknown[]): PromiseLike<unknown>;
}

/** Extracts the rows of a result of {@link SqlClient.query}. @throws HawserError `invalid_argument` if it has none */
export function rowsOf(result: unknown): Record<string, unknown>[] {
  const rows = Array.isArray(result) ? result : (result as { rows?: unknown } | null | undefined)?.rows;
  if (Array.isArray(rows) && rows.every(isObject)) return rows;
  throw new HawserError(
    "invalid_argument",
    "query() of the client resolved without rows; it must resolve with them, or with an object that has them as rows, " +
      "and each row must be an object",
  );
}

function isObject(row: unknown): boolean {
  return typeof row === "object" && row !== null && !Array.isArray(row);
}

/** Fields of a Postgres error, as far as drivers and libraries pass them on. */
export interface ErrorFields {
  /** SQLSTATE, if Postgres has answered. */
  readonly code?: unknown;
  readonly message?: string;
  readonly detail?: unknown;
  readonly hint?: unknown;
  readonly routine?: unknown;
}

/**
 * Finds the Postgres error in a rejection of a {@link SqlClient}, because some libraries wrap it. Returns the rejection
 * itself if it contains none.
 */
export function postgresErrorOf(error: unknown): ErrorFields {
  const { cause, meta } = (error ?? {}) as {
    /** Set by Drizzle. */
    readonly cause?: unknown;
    /** Set by Prisma. */
    readonly meta?: { readonly driverAdapterError?: { readonly cause?: unknown } };
  };
  const wrapped = meta?.driverAdapterError?.cause as (ErrorFields & OriginalError) | null | undefined;
  // Prisma replaces the text of some errors and omits `code`.
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
