/**
 * Clients of the transactions of query builders and ORMs. None of these libraries is imported: the types of the parameters
 * name the methods that are used, which take `never`, so that each version's own types fit.
 *
 * The values arrive as with node-postgres: text, numbers, booleans, null, dates, bytes, and arrays of these. For a parameter
 * of type json or jsonb the statement says `$1::text::jsonb`: Postgres.js encodes as JSON what it takes for JSON.
 */
import type { SqlClient } from "./sql-client.js";

/**
 * Makes a client of a transaction of Drizzle, also of a nested one. With the database itself (`db`), each statement is
 * committed at once.
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
 * Makes a client of a transaction of Kysely: that of `db.transaction().execute(async (trx) => …)`, or of
 * `db.startTransaction()`, also behind a savepoint. Plugins do not see its statements. With the database itself (`db`), each
 * statement is committed at once.
 */
export function fromKysely(trx: { withoutPlugins(): { executeQuery(query: never): PromiseLike<unknown> } }): SqlClient {
  return {
    query(sql, parameters) {
      const query = { kind: "RawNode", sqlFragments: [sql], parameters: [] };
      const compiled = { sql, parameters: parameters.map(asText), query, queryId: { queryId: "hawser" } };
      // Plugins would change the names of columns, and what looks like JSON.
      return trx.withoutPlugins().executeQuery(compiled as never);
    },
  };
}

/**
 * Makes a client of a transaction of Knex: that of `knex.transaction(async (trx) => …)`, also of a nested one. With `knex`
 * itself, each statement is committed at once.
 */
export function fromKnex(trx: { raw(text: string, bindings: never): PromiseLike<unknown> }): SqlClient {
  return {
    query(text, values) {
      const bindings: unknown[] = [];
      const pieces = piecesOf(text).map((piece) => {
        // A question mark of the statement itself is no parameter.
        if (typeof piece === "string") return piece.replaceAll("?", "\\?");
        bindings.push(asText(values[piece]));
        return "?";
      });
      return trx.raw(pieces.join(""), bindings as never);
    },
  };
}

/**
 * Makes a client of a transaction of Prisma: that of `prisma.$transaction(async (tx) => …)`, also of a nested one. With the
 * `PrismaClient` itself, each statement is committed at once.
 */
export function fromPrisma(tx: { $queryRawUnsafe(text: string, ...values: never[]): PromiseLike<unknown> }): SqlClient {
  return {
    query: (text, values) => tx.$queryRawUnsafe(text, ...(values.map(asText) as never[])),
  };
}

/** Names and texts in quotes, and parameters. */
const quotedOrParameter = /"[^"]*"|'[^']*'|\$(\d+)/g;

/** The statement in pieces: its text, and for each parameter in it the index of the value. */
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
 * Dates, and arrays of bytes, as text: Prisma leaves out the zone of a date, Drizzle on Postgres.js refuses dates, and
 * Postgres.js takes an array of bytes for bytes. All else is left as it is.
 */
function asText(value: unknown): unknown {
  if (value instanceof Date) return value.toISOString();
  if (!Array.isArray(value) || !value.some((element) => element instanceof Uint8Array)) return value;
  const elements = value.map((bytes: Uint8Array | null) =>
    bytes === null ? "NULL" : `"\\\\x${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex")}"`,
  );
  return `{${elements.join(",")}}`;
}
