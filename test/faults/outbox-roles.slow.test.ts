/**
 * Four roles enqueue at the same rate, each for a stream of its own. One of them also enqueues what is too long, what has no
 * stream and no domain, and transactions with thousands of keys and topics, and a login without rights holds every advisory lock
 * that Hawser has ever used.
 */
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import pg from "pg";
import { expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { startNatsServer } from "../support/nats-server.js";
import { ownPostgres } from "./support/own-postgres.js";
import {
  connected,
  createRoles,
  enqueueBesideAttack,
  enqueuingSeconds,
  honest,
  hostile,
  Overtaken,
} from "./support/roles.js";
import { ServeProcess } from "./support/serve-process.js";
import { prepareForSql } from "./support/sql-database.js";

/** Messages of a burst, of which each kind has its own. */
const burst = 60_000;
/** Most hostile messages before half of the others. A single window for all roles would make it bursts. */
const limit = burst / 4;

const locks = [
  "hawser:lease:__#outbox",
  "hawser:lease:ann",
  "hawser:fence:ann",
  "hawser:fence:__#outbox",
  "hawser:listeners",
  "hawser:dead_letters",
  "hawser:handlers:responder",
];

it("a role that enqueues what cannot be published, and as much as it can, delays only itself", {
  timeout: 300_000 + enqueuingSeconds * 1_000,
}, async () => {
  await using postgres = await ownPostgres();
  await using nats = await startNatsServer({ jetStream: true });
  await prepareForSql(postgres.url, nats.url);
  const admin = new pg.Client({ connectionString: postgres.url });
  await admin.connect();
  await admin.query("CREATE ROLE stranger LOGIN PASSWORD 'stranger'");
  await createRoles(admin, "hawser_nats, hawser_peer");
  // Before anything runs, and to its end.
  await using stranger = await connected(postgres.url, "stranger");
  for (const name of locks) await stranger.query("SELECT pg_advisory_lock(hashtextextended($1, 0))", [name]);
  await using serve = await ServeProcess.start(postgres.url);
  const watcher = await connect({ servers: nats.url });
  try {
    const manager = await jetstreamManager(watcher);
    for (const role of [...honest, hostile]) await manager.streams.add({ name: role, subjects: [`${role}.>`] });
    const overtaken = new Overtaken();
    watcher.subscribe("*.>", {
      callback: (_, message) => {
        if (!message.subject.startsWith("_")) overtaken.arrived(message.string());
      },
    });
    await watcher.flush();
    await enqueueBesideAttack(
      postgres.url,
      overtaken,
      (client, role, text, key) =>
        client.query("SELECT hawser.enqueue($1, $2, stream => true, key => $3)", [`${role}.x`, text, key]),
      [
        `SELECT hawser.enqueue('mal.k' || n, 'x', stream => true, key => 'k' || n) FROM generate_series(1, ${burst}) AS n`,
        `SELECT hawser.enqueue('topic-' || $1::text || '-' || n, 'x') FROM generate_series(1, ${burst}) AS n`,
        `SELECT hawser.enqueue('mal.d', 'x', stream => true, domain => 'gone' || n % 50) FROM generate_series(1, ${burst / 6}) AS n`,
        `SELECT hawser.enqueue('missing.' || $1::text || '.' || n, 'x', stream => true) FROM generate_series(1, ${burst / 6}) AS n`,
        `SELECT hawser.enqueue('mal.long', repeat('x', 2 << 20), stream => true) FROM generate_series(1, ${burst / 6_000}) AS n`,
      ],
    );
    await eventually("all messages of the others are published", () => overtaken.missing === 0, 200_000);
    const { rows } = await admin.query<{ left: number }>("SELECT count(*)::integer AS left FROM hawser_data.outbox");
    console.log(`${rows[0]!.left} wait`);
    expect(overtaken.report()).toBeLessThan(limit);
    // Otherwise the relay was faster than the attack, and nothing was shown.
    expect(rows[0]!.left).toBeGreaterThan(burst / 4);
    expect(serve.isRunning).toBe(true);
  } finally {
    await admin.end();
    await watcher.close();
  }
});
