/**
 * A worker in a process of its own, named by its argument. Its transactional handler wants each message later, ten times; then it
 * writes a row of the table `effects`. Each start is a row of the table `starts`, and each time that it wants a message again
 * one of `wanted`, which do not depend on the transaction. The database is that of HAWSER_DATABASE_URL.
 */
import pg from "pg";
import { RetryAfter, Worker } from "../../../src/jobs-and-peers/peer/index.js";

const name = process.argv[2]!;
const pool = new pg.Pool({ connectionString: process.env["HAWSER_DATABASE_URL"], max: 4 });
const worker = new Worker({ name, concurrency: 4, stopOnSignals: true, defaults: { retry: { attempts: 5 } } });
await worker.handle("b", { transactional: true, takeoverMs: 2_000 }, async (message) => {
  const what = message.text();
  await pool.query("INSERT INTO starts (what, attempt) VALUES ($1, $2)", [what, message.attempt]);
  await message.client.query("INSERT INTO effects (what) VALUES ($1)", [what]);
  const { rows } = await pool.query("SELECT count(*)::int AS wanted FROM wanted WHERE what = $1", [what]);
  if (rows[0].wanted >= 10) return;
  await pool.query("INSERT INTO wanted (what, at) VALUES ($1, clock_timestamp() + interval '100 ms')", [what]);
  throw new RetryAfter(150);
});
await worker.start();
console.log("running");
await worker.closed;
await pool.end();
