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
  listen: "127.0.0.1:0",
  databaseUrl,
  transactional: true,
  ...(concurrency === undefined ? {} : { concurrency: Number(concurrency), poolSize: Number(concurrency) + 1 }),
  maxAttempts: 1_000,
  nameWaitMs: 60_000,
  group: process.env["BOOKING_GROUP"] || undefined,
  durable: process.env["BOOKING_DURABLE"] === "1",
  groupTakeoverMs: 1_000,
});

peer.on("status", (status) => {
  if (status.kind !== "name_lost") return;
  console.error(status.message);
  process.exit(nameLostStatus);
});

async function start(): Promise<boolean> {
  try {
    await peer.run(async ({ client, payload, headers }) => {
      const id = Buffer.from(payload).toString();
      const key = headers.find(([header]) => header === "key")?.[1];
      await client.query("INSERT INTO booked (topic, id, key, peer) VALUES ($1, $2, $3, $4)", [
        topic,
        id,
        key ?? null,
        name,
      ]);
      if (further === "") return;
      await peer.enqueue(client, further, id, { key, headers: key === undefined ? {} : { key } });
    });
    return true;
  } catch {
    // Postgres is away.
    return false;
  }
}

await eventually("Postgres takes the peer", start);
process.stdout.write("running\n");
