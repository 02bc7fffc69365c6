/**
 * A peer in a process of its own that books what comes: its transactional handler writes a row and, if it has a further
 * topic, tells that. Arguments: name, topic, further topic or nothing, concurrency. The database is that of HAWSER_DATABASE_URL.
 * BOOKING_GROUP names the group that it is a member of. With BOOKING_DURABLE it is durable.
 */
import { Peer } from "../../../src/peer/index.js";
import { eventually } from "../../support/eventually.js";

/** The exit status when the name is lost. */
const nameLostStatus = 3;
const databaseUrl = process.env["HAWSER_DATABASE_URL"];
const [name, topic, further = "", concurrency] = process.argv.slice(2) as [string, string, ...string[]];
const peer = new Peer({
  name,
  topic,
  databaseUrl,
  ...(concurrency === undefined ? {} : { concurrency: Number(concurrency), poolSize: Number(concurrency) + 1 }),
  nameWaitMs: 60_000,
  defaults: {
    retry: { attempts: 1_000 },
    group: process.env["BOOKING_GROUP"] || undefined,
    durable: process.env["BOOKING_DURABLE"] === "1",
    ...(process.env["BOOKING_GROUP"] ? { takeoverMs: 1_000 } : {}),
  },
});

peer.on("status", (status) => {
  if (status.kind !== "name_lost") return;
  console.error(status.message);
  process.exit(nameLostStatus);
});

async function start(): Promise<boolean> {
  try {
    await peer.handle(topic, { transactional: true }, async (message) => {
      const { client, headers } = message;
      const id = message.text();
      const key = headers.get("key");
      await client.query("INSERT INTO booked (topic, id, key, peer) VALUES ($1, $2, $3, $4)", [
        topic,
        id,
        key ?? null,
        name,
      ]);
      if (further === "") return;
      await peer.enqueue(client, further, id, { key, headers: key === undefined ? {} : { key } });
    });
    await peer.start();
    return true;
  } catch {
    // Postgres is away.
    return false;
  }
}

await eventually("Postgres takes the peer", start);
process.stdout.write("running\n");
