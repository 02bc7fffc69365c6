import pg from "pg";

/** Runs statements one after another on a connection of their own. */
export async function onServer(databaseUrl: string, ...statements: readonly string[]): Promise<void> {
  for (const statement of statements) await rowsOf(databaseUrl, statement);
}

/** Runs a statement on a connection of its own and resolves with its rows. */
export async function rowsOf(databaseUrl: string, statement: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: databaseUrl });
  // When the server goes, the rejected query tells; the event would end the process.
  client.on("error", () => undefined);
  await client.connect();
  try {
    return (await client.query(statement)).rows;
  } finally {
    await client.end();
  }
}
