/** A backend of Postgres that stands still, while it serves the relay for NATS. */
import { nuid } from "@nats-io/transport-node";
import pg from "pg";
import { expect, it } from "vitest";
import { serve as startServer } from "../../src/nats/serve/index.js";
import { install } from "../../src/operating/installation/index.js";
import { ownPostgres } from "../faults/support/own-postgres.js";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { defineServer, patience } from "../support/gateway.js";
import { natsClient } from "../support/nats-client.js";
import { rowsOf } from "../support/on-server.js";
import { noTimersAbove } from "../support/timers.js";

/** Its next poll comes within 4 seconds, and has 5 seconds. */
const longestMs = 5_000;

it("a relay whose backend stands still goes on in another session, within 10 seconds", async () => {
  // Of its own: sessions that stand still may hold up others of the server.
  await using postgres = await ownPostgres();
  await install({ databaseUrl: postgres.url });
  const client = new pg.Client(postgres.url);
  await client.connect();
  await defineServer(client, testNatsUrl());
  await using _ = await startServer({ databaseUrl: postgres.url, listen: "127.0.0.1:0", ...patience });
  await using nats = await natsClient({ servers: testNatsUrl() });
  const subject = nuid.next();
  const received: string[] = [];
  nats.subscribe(subject, { callback: (_, message) => void received.push(message.string()) });
  await nats.flush();
  const enqueue = (text: string) => client.query("SELECT hawser.enqueue($1, $2, stream => false)", [subject, text]);
  await enqueue("before");
  await eventually("it has arrived", () => received.length === 1);
  // Core NATS may get again what a relay has published and not yet saved.
  const waiting = "SELECT FROM hawser.outbox_status WHERE kind = 'nats' AND waiting > 0";
  await eventually("it is saved", async () => (await rowsOf(postgres.url, waiting)).length === 0);
  const [relay] = await rowsOf(
    postgres.url,
    "SELECT pid FROM pg_stat_activity WHERE application_name = 'hawser serve: outbox'",
  );
  const pid = Number(relay!["pid"]);
  noTimersAbove(longestMs);
  process.kill(pid, "SIGSTOP");
  try {
    await enqueue("behind it");
    await eventually("it has arrived", () => received.length > 1);
  } finally {
    process.kill(pid, "SIGCONT");
    await client.end();
  }
  expect(received).toEqual(["before", "behind it"]);
});
