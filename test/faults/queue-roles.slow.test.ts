/**
 * Four roles enqueue at the same rate for a topic of one worker, with the same keys. One of them also enqueues tens of thousands of
 * messages for that topic, with keys of the others, for each listener of its own invention, and for thousands of topics that
 * nobody serves, and a login without rights holds the advisory locks by which workers say that they wait.
 */
import pg from "pg";
import { expect, it } from "vitest";
import { Worker } from "../../src/jobs-and-peers/peer/index.js";
import { eventually } from "../support/eventually.js";
import { ownPostgres } from "./support/own-postgres.js";
import { connected, createRoles, enqueueBesideAttack, enqueuingSeconds, Overtaken } from "./support/roles.js";
import { prepareForSql } from "./support/sql-database.js";

/** Messages of a burst, of which each kind has its own. */
const burst = 20_000;
/** Most hostile messages before half of the others. A worker takes some hundreds ahead; in one line for all roles it would be bursts. */
const limit = burst / 4;

it("a role that enqueues as much as it can for a topic delays only itself, and its keys hold up no other role", {
  timeout: 300_000 + enqueuingSeconds * 1_000,
}, async () => {
  await using postgres = await ownPostgres();
  await prepareForSql(postgres.url);
  const admin = new pg.Client({ connectionString: postgres.url });
  await admin.connect();
  await admin.query("CREATE ROLE stranger LOGIN PASSWORD 'stranger'");
  await createRoles(admin, "hawser_peer");
  await using stranger = await connected(postgres.url, "stranger");
  for (let bucket = 0; bucket < 32; bucket++)
    await stranger.query("SELECT pg_advisory_lock(hashtextextended($1, 0))", [`hawser:queue:${bucket}`]);
  const overtaken = new Overtaken();
  await using worker = new Worker({ databaseUrl: postgres.url });
  await worker.handle("work", { transactional: true }, ({ payload }) => overtaken.arrived(payload.toString()));
  await worker.start();
  try {
    await enqueueBesideAttack(
      postgres.url,
      overtaken,
      (client, _, text, key) => client.query("SELECT hawser.enqueue('work', $1::text, key => $2)", [text, key]),
      [
        `SELECT hawser.enqueue('work', 'x', key => 'k' || n % 10) FROM generate_series(1, ${burst}) AS n`,
        `SELECT hawser.enqueue('work', 'x') FROM generate_series(1, ${burst}) AS n`,
        `SELECT hawser.enqueue('topic-' || $1::text || '-' || n, 'x') FROM generate_series(1, ${burst / 4}) AS n`,
      ],
    );
    await eventually("all messages of the others are handled", () => overtaken.missing === 0, 200_000);
    const { rows } = await admin.query<{ left: number }>(
      "SELECT count(*)::integer AS left FROM hawser_data.queue WHERE topic = 'work'",
    );
    expect(overtaken.report()).toBeLessThan(limit);
    // Otherwise the worker was faster than the attack, and nothing was shown.
    expect(rows[0]!.left).toBeGreaterThan(burst / 4);
  } finally {
    await admin.end();
  }
});
