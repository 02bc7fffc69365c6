/**
 * A worker in a process of its own. Handlers of messages "0" do not end when they are begun for the first time. Each start is
 * a row of the table `starts`. The database is that of HAWSER_DATABASE_URL.
 */
import pg from "pg";
import { Worker } from "../../../src/jobs-and-peers/peer/index.js";

const pool = new pg.Pool({ connectionString: process.env["HAWSER_DATABASE_URL"], max: 4 });
const worker = new Worker({ name: "b-1", concurrency: 4, stopOnSignals: true });
await worker.handle("b", { takeoverMs: 2_000 }, async (message) => {
  await pool.query("INSERT INTO starts (what, attempt) VALUES ($1, $2)", [message.text(), message.attempt]);
  if (message.text() === "0" && message.attempt === 1) await new Promise(() => undefined);
});
await worker.start();
console.log("running");
await worker.closed;
await pool.end();
