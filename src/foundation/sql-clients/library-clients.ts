/**
 * Clients for transactions of query builders and ORMs. None of these libraries is imported: the parameter types list
 * the methods in use with arguments of type `never`, so that the types of all versions fit.
 *
 * Values have the types of node-postgres: text, numbers, booleans, null, dates, bytes, and arrays of these. Statements
 * write `$1::text::jsonb` for json and jsonb parameters, because Postgres.js encodes values that it recognises as JSON.
 */
import type { SqlClient } from "./sql-client.js";

/**
 * Creates a client for a transaction of Drizzle, which may be nested. With the database itself (`db`), each statement
 * is committed at once.
 *
 *     await db.transaction(async (tx) => enqueue(fromDrizzle(tx, sql), …));
 *
 * @param sql the `sql` of `drizzle-orm`
 */
export function fromDrizzle(
  tx: { execute(query: never): PromiseLike<unknown> },
  sql: {
    raw(text: string): unknown;
    param(value: unknown): unknown;
    join(chunks: never[]): unknown;
  },
): SqlClient {
  return {
    query(text, values) {
      const chunks = piecesOf(text).map((piece) =>
        typeof piece === "string" ? sql.raw(piece) : sql.param(asText(values[piece])),
      );
      return tx.execute(sql.join(chunks as never[]) as never);
    },
  };
}

/**
 * Creates a client for a transaction of Kysely: from `db.transaction().execute(async (trx) => …)` or
 * `db.startTransaction()`, also after a savepoint. Plugins do not see its statements. With the database itself (`db`),
 * each statement is committed at once.
 */
export function fromKysely(trx: { withoutPlugins(): { executeQuery(query: never): PromiseLike<unknown> } }): SqlClient {
  return {
    query(sql, parameters) {
      const query = { kind: "RawNode", sqlFragments: [sql], parameters: [] };
      const compiled = { sql, parameters: parameters.map(asText), query, queryId: { queryId: "hawser" } };
      // Plugins would rename columns and parse values that look like JSON.
      return trx.withoutPlugins().executeQuery(compiled as never);
    },
  };
}

/**
 * Creates a client for a transaction of Knex: from `knex.transaction(async (trx) => …)`, which may be nested. With
 * `knex` itself, each statement is committed at once.
 */
export function fromKnex(trx: { raw(text: string, bindings: never): PromiseLike<unknown> }): SqlClient {
  return {
    query(text, values) {
      const bindings: unknown[] = [];
      const pieces = piecesOf(text).map((piece) => {
        // A question mark of the statement itself is not a parameter.
        if (typeof piece === "string") return piece.replaceAll("?", "\\?");
        bindings.push(asText(values[piece]));
        return "?";
      });
      return trx.raw(pieces.join(""), bindings as never);
    },
  };
}

/**
 * Creates a client for a transaction of Prisma: from `prisma.$transaction(async (tx) => …)`, which may be nested. With
 * the `PrismaClient` itself, each statement is committed at once.
 */
export function fromPrisma(tx: { $queryRawUnsafe(text: string, ...values: never[]): PromiseLike<unknown> }): SqlClient {
  return {
    query: (text, values) => tx.$queryRawUnsafe(text, ...(values.map(asText) as never[])),
  };
}

/** Matches quoted names and strings, and parameters. */
const quotedOrParameter = /"[^"]*"|'[^']*'|\$(\d+)/g;

/** Splits a statement into its text and, for each parameter, the index of its value. */
function piecesOf(text: string): (string | number)[] {
  const pieces: (string | number)[] = [];
  let end = 0;
  for (const { 0: match, 1: number, index } of text.matchAll(quotedOrParameter)) {
    if (number === undefined) continue;
    pieces.push(text.slice(end, index), Number(number) - 1);
    end = index + match.length;
  }
  return [...pieces, text.slice(end)];
}

/**
 * Converts dates and arrays of bytes to text: Prisma drops the time zone of a date, Drizzle on Postgres.js rejects
 * dates, and Postgres.js sends an array of bytes as bytes. Other values are unchanged.
 */
export function asText(value: unknown): unknown {
  if (value instanceof Date) return value.toISOString();
  if (!Array.isArray(value) || !value.some((element) => element instanceof Uint8Array)) return value;
  const elements = value.map((bytes: Uint8Array | null) =>
    bytes === null ? "NULL" : `"\\\\x${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex")}"`,
  );
  return `{${elements.join(",")}}`;
}
