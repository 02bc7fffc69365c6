/**
 * The shop. Each order is one transaction: the order's row, a message that tells the warehouse, and an event for NATS. A few
 * of them are rolled back. It goes on until it is told to stop.
 */
import pg from "pg";
import { enqueue } from "../../src/jobs-and-peers/peer/index.js";

const customers = 8;
const pauseMs = 20;

const pool = new pg.Pool({ connectionString: process.env["HAWSER_DATABASE_URL"], max: customers });
// A broken connection rejects the query that needs it. The pool listens for its clients only while they are idle.
pool.on("error", () => undefined);
pool.on("connect", (client) => client.on("error", () => undefined));
const subject = process.env["ORDERS_SUBJECT"]!;
const stopping = new AbortController();
for (const event of ["SIGINT", "SIGTERM", "disconnect"]) process.once(event, () => stopping.abort());

async function order(client: pg.PoolClient, what: string): Promise<void> {
  await client.query("BEGIN");
  try {
    const { rows } = await client.query<{ id: string }>("INSERT INTO orders (what) VALUES ($1) RETURNING id", [what]);
    const id = rows[0]!.id;
    await enqueue(client, "warehouse", { id, what }, { key: id });
    await enqueue(client, { subject, stream: true }, { id }, { key: id });
    if (Math.random() < 0.1) throw new Error("the customer has changed their mind");
    await client.query("COMMIT");
  } catch {
    await client.query("ROLLBACK");
  }
}

async function customer(): Promise<void> {
  while (!stopping.signal.aborted) {
    const client = await pool.connect();
    try {
      await order(client, "20 m of rope");
    } finally {
      client.release();
    }
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 2 * pauseMs));
  }
}

console.log("takes orders");
await Promise.all(Array.from({ length: customers }, customer));
await pool.end();
process.disconnect?.();
