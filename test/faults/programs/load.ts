/**
 * Load in a process of its own. Arguments: `enqueue` or `handle` or `join`, and topics. The database is that of HAWSER_DATABASE_URL.
 *
 * - `enqueue` enqueues a message for each topic, and publishes one for each of the subjects that begin with `nats.`, ten times a second,
 *   through all restarts of Postgres;
 * - `handle` runs a worker, and `join` a peer of the group `billing`, both named like the first topic, with metrics at MONITOR. A line on
 *   standard input is the time in milliseconds that handlers take from then on.
 */
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { monitor, Peer, Worker } from "../../../src/jobs-and-peers/peer/index.js";

const [, , kind, ...topics] = process.argv as [string, string, string, ...string[]];
const pauseMs = 100;

if (kind === "enqueue") {
  const statement = topics
    .map((topic) =>
      topic.startsWith("nats.") ? `nats_publish_text('${topic}', 'x')` : `hawser.enqueue('${topic}', 'x')`,
    )
    .join(", ");
  let client: pg.Client | undefined;
  process.stdout.write("running\n");
  for (;;) {
    try {
      if (client === undefined) {
        client = new pg.Client({ connectionString: process.env["HAWSER_DATABASE_URL"] });
        client.on("error", () => undefined);
        await client.connect();
      }
      await client.query(`SELECT ${statement}`);
    } catch (error) {
      // NATS away fails the statement, Postgres away the session.
      if (!(error instanceof pg.DatabaseError) || error.severity === "FATAL") {
        client?.end().catch(() => undefined);
        client = undefined;
      }
    }
    await delay(pauseMs);
  }
}

const name = `${topics[0]}-1`;
const member =
  kind === "join"
    ? new Peer({ name, topic: topics[0]!, stopOnSignals: true, defaults: { group: "billing" } })
    : new Worker({ name, stopOnSignals: true, concurrency: 4 });
let handlerMs = 5;
for (const topic of topics) await member.handle(topic, () => delay(handlerMs));
await member.start();
const pages = monitor(member);
createServer(async (request, response) => {
  const page = await pages(request);
  response.writeHead(page.status, Object.fromEntries(page.headers)).end(await page.text());
})
  .listen(Number(process.env["MONITOR"]), "127.0.0.1", () => process.stdout.write("running\n"))
  .unref();
createInterface({ input: process.stdin })
  .on("line", (line) => {
    handlerMs = Number(line);
  })
  .on("close", () => undefined);
await member.closed;
process.exit(0);
