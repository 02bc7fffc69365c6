/**
 * A peer in a process of its own that answers requests with what they say, after a while that differs. Arguments: name,
 * topic. The database is that of HAWSER_DATABASE_URL.
 */
import { setTimeout as delay } from "node:timers/promises";
import { Peer } from "../../../src/jobs-and-peers/peer/index.js";

const databaseUrl = process.env["HAWSER_DATABASE_URL"];
const [name, topic] = process.argv.slice(2) as [string, string];
const peer = new Peer({ name, topic, listen: "127.0.0.1:0", databaseUrl, nameWaitMs: 60_000 });
await peer.respond(topic, async (request) => {
  const text = request.text();
  if (Number(text) % 7 === 0) await delay(Number(text) % 50);
  if (Number(text) % 101 === 0) throw new Error("of no use");
  return `answer to ${text}`;
});
await peer.start();
process.stdout.write("running\n");
