import pg from "pg";

/** Runs statements one after another on a connection of their own; none of them in a transaction with another. */
export async function onServer(databaseUrl: string, ...statements: readonly string[]): Promise<void> {
  await onConnection(databaseUrl, async (client) => {
    for (const statement of statements) await client.query(statement);
  });
}

/** Runs a statement on a connection of its own and resolves with its rows. */
export async function rowsOf(databaseUrl: string, statement: string): Promise<Record<string, unknown>[]> {
  return onConnection(databaseUrl, async (client) => (await client.query(statement)).rows);
}

async function onConnection<T>(databaseUrl: string, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: databaseUrl });
  // When the server goes, the rejected query tells; the event would end the process.
  client.on("error", () => undefined);
  await client.connect();
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}
