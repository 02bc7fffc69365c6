/**
 * A peer in a process of its own: each start of a handler of the topic "jobs" is a row of the table `starts`, and each end one of
 * `ended`, in the handler's transaction. Messages of the topic "other" end at once. The arguments are the peer's name and its
 * concurrency, the database is that of HAWSER_DATABASE_URL.
 */
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { Peer } from "../../../src/jobs-and-peers/peer/index.js";

const [name = "", concurrency = "4"] = process.argv.slice(2);
const pool = new pg.Pool({ connectionString: process.env["HAWSER_DATABASE_URL"], max: 4 });
pool.on("error", () => undefined);
const peer = new Peer({ name, concurrency: Number(concurrency), stopOnSignals: true });
// No worker is ended while its process may begin messages: the successor of a killed one ends it.
const options = { transactional: true, takeoverMs: 60_000, retry: { delayMs: 20 } } as const;
await peer.handle("jobs", options, async (message) => {
  const values = [message.text(), name];
  await pool.query("INSERT INTO starts (what, peer) VALUES ($1, $2)", values);
  await delay(5 + Math.random() * 40);
  await message.client.query("INSERT INTO ended (what, peer) VALUES ($1, $2)", values);
});
await peer.handle("other", options, async ({ client }) => {
  await client.query("INSERT INTO ended (what, peer) VALUES ('other', $1)", [name]);
});
await peer.start();
console.log("running");
await peer.closed;
await pool.end();
