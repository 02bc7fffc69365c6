import { readFile } from "node:fs/promises";
import { enqueue, Peer, schedule } from "hawser";
import pg from "pg";

/** A running service; `stop` waits for handlers that run. */
export interface Service {
  stop(): Promise<void>;
}

/**
 * Starts the service: it books each order once, and prints the number of bookings every minute.
 *
 * @param databaseUrl undefined: as the `PG*` variables say
 */
export async function startService(databaseUrl = process.env["HAWSER_DATABASE_URL"]): Promise<Service> {
  const pool = new pg.Pool({ connectionString: databaseUrl });
  await pool.query(await readFile(new URL("../migrations/1-orders.sql", import.meta.url), "utf8"));

  const peer = new Peer({ name: "orders-1", topic: "orders", databaseUrl });
  // The booking and the acknowledgement are one transaction: a killed process leaves both, or neither.
  await peer.handle("orders", { transactional: true }, async (message) => {
    const { id, article } = message.json<{ id: string; article: string }>();
    await message.client.query("INSERT INTO bookings VALUES ($1, $2)", [id, article]);
    console.log(`booked order ${id}: ${article}`);
  });
  await peer.handle("order-reports", { transactional: true }, async ({ client }) => {
    const { rows } = await client.query<{ count: string }>("SELECT count(*) FROM bookings");
    console.log(`${rows[0]?.count} bookings`);
  });
  await peer.start();
  await schedule(pool, "order-report", { cron: "* * * * *", to: "order-reports" });

  return {
    async stop() {
      await peer.stop();
      await pool.end();
    },
  };
}

/** Inserts an order and enqueues its message in one transaction. Resolves with the number of the order. */
export async function placeOrder(pool: pg.Pool, article: string): Promise<string> {
  const client = await pool.connect();
  try {
    await client.query("BEGIN");
    const { rows } = await client.query<{ id: string }>("INSERT INTO orders (article) VALUES ($1) RETURNING id", [
      article,
    ]);
    const id = rows[0]!.id;
    await enqueue(client, "orders", { id, article }, { key: `order-${id}` });
    await client.query("COMMIT");
    return id;
  } catch (error) {
    await client.query("ROLLBACK");
    throw error;
  } finally {
    client.release();
  }
}
