/**
 * A database of an example's own, so that a Postgres which holds other things is left as it was.
 */
import { randomBytes } from "node:crypto";
import pg from "pg";

/** A new database; dropped when it is disposed of. */
export interface ExampleDatabase extends AsyncDisposable {
  readonly url: string;
  readonly name: string;
  /** Runs a statement, or several. @returns the first column of its first row, as text; of several, '' */
  value(statement: string): Promise<string>;
}

/** How many messages are stored for listeners. */
export const countStored = "SELECT count(*) FROM hawser_peer_data.stored_messages";

/** Makes a database on the server of the URL; `example` is a part of its name. */
export async function createDatabase(serverUrl: string, example: string): Promise<ExampleDatabase> {
  const name = `hawser_${example}_${randomBytes(4).toString("hex")}`;
  await query(serverUrl, `CREATE DATABASE ${name}`);
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  return {
    url: url.href,
    name,
    value: async (statement) => String(Object.values((await query(url.href, statement))[0] ?? {})[0] ?? ""),
    [Symbol.asyncDispose]: async () => {
      await query(serverUrl, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
    },
  };
}

async function query(url: string, statement: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url });
  // A broken connection rejects the query below; the event says nothing more.
  client.on("error", () => undefined);
  try {
    await client.connect();
    const result: pg.QueryResult | pg.QueryResult[] = await client.query(statement);
    return Array.isArray(result) ? [] : result.rows;
  } finally {
    await client.end();
  }
}
