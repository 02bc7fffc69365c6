import { AsyncLocalStorage } from "node:async_hooks";
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

/** Connections that are kept, by URL. */
const kept = new AsyncLocalStorage<Map<string, pg.Client>>();

/**
 * While `work` runs, {@link rowsOf} and {@link onServer} keep their connections: a poll that connects each time takes as much of
 * a processor as what it waits for.
 */
export async function keepingConnections<T>(work: () => Promise<T>): Promise<T> {
  if (kept.getStore() !== undefined) return work();
  const clients = new Map<string, pg.Client>();
  try {
    return await kept.run(clients, work);
  } finally {
    await Promise.all([...clients.values()].map((client) => client.end()));
  }
}

async function onConnection<T>(databaseUrl: string, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const clients = kept.getStore();
  const open = clients?.get(databaseUrl);
  if (open !== undefined) {
    try {
      return await use(open);
    } catch (error) {
      // It had ended since the last time.
      if (clients?.get(databaseUrl) === open) throw error;
    }
  }
  const client = new pg.Client({ connectionString: databaseUrl });
  // When the server goes, the rejected query tells; the event would end the process.
  client.on("error", () => undefined);
  await client.connect();
  if (clients !== undefined && !clients.has(databaseUrl)) {
    client.once("end", () => clients.get(databaseUrl) === client && clients.delete(databaseUrl));
    clients.set(databaseUrl, client);
    return use(client);
  }
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}
