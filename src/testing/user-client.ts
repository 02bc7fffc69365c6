import pg from "pg";

/** A connection of its own with the database's own settings, as users' programs and migrations have: for as long as `work`. */
export async function withClient<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client(url);
  // When the server goes, the rejected query tells.
  client.on("error", () => undefined);
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}
