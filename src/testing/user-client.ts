import pg from "pg";

/** Connects for the duration of `work`, with the database's own settings, as users' programs and migrations do. */
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
