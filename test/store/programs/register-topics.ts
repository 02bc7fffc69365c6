/**
 * Registers a listener with many topics, again and again. Arguments: name, number of topics. The database is that of
 * HAWSER_DATABASE_URL.
 */
import { openStore } from "../../../src/jobs-and-peers/peer-store/store.js";

const [name, count] = process.argv.slice(2) as [string, string];
const store = await openStore({ databaseUrl: process.env["HAWSER_DATABASE_URL"] });
const lease = await store.takeName(name, { waitMs: 0 });
const topics = Array.from({ length: Number(count) }, (_, n) => ({ topic: `topic ${n}`, subscribed: true }));
console.log("held");
for (let port = 1; ; port++) {
  const addr = `127.0.0.1:${(port % 60_000) + 1}`;
  await store.registerListener(lease, { addr, maxMessageBytes: 1_000, durable: false, topics });
}
