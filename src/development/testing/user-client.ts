import pg from "pg";

/** Connects for the duration of `work`. Leaves the database's own settings unchanged, like programs of users. */
export async function withClient<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client(url);
  // If the server ends the connection, the rejected query reports it.
  client.on("error", () => undefined);
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}
