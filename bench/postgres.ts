/**
 * Sessions with Postgres, of the baselines and of what looks at the measured database from outside.
 */
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";

/** Opens a session. When the server goes, the rejected query tells; the event would end the process. */
export async function connected(databaseUrl: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: databaseUrl });
  client.on("error", () => undefined);
  await client.connect();
  return client;
}

/** Runs one statement in a session of its own. @returns the rows */
export async function execute(databaseUrl: string, statement: string, values: unknown[] = []): Promise<unknown[]> {
  const client = await connected(databaseUrl);
  try {
    return (await client.query(statement, values)).rows;
  } finally {
    await client.end();
  }
}

/** Poll interval of the cursors: short against the seconds of a drain, and a small load for Postgres. */
const lookEveryMs = 2;

/**
 * Resolves when the committed cursors of all channels of the database sum up to `number`: what a listener has handled
 * is committed then, and so deleted. That is when draining has ended.
 */
export async function cursorReaches(client: pg.Client, number: number): Promise<void> {
  for (;;) {
    const { rows } = await client.query<{ sum: string | null }>({
      name: "bench.cursor",
      text: "SELECT sum(number) FROM hawser_peer_data.cursors",
    });
    if (Number(rows[0]!.sum ?? 0) >= number) return;
    await delay(lookEveryMs);
  }
}
