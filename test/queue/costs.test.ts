/** What a call reads beside the messages of another role: by pages, which no other work of the machine changes. */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { TestWorker } from "./support/test-worker.js";

/** Number of topics of the other role, with a message each. */
const topics = 3_000;

let database: TestDatabase;
let client: pg.Client;

beforeAll(async () => {
  database = await testDatabase({ nats: false });
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
  await client.query(`
    INSERT INTO hawser_data.queue (topic, role, rank, id, payload)
    SELECT 'f' || n, 'flood', n, n, 'x' FROM (SELECT nextval('hawser_data.outbox_id_seq') AS n FROM generate_series(1, ${topics})) AS s`);
});
afterAll(async () => {
  await client?.end();
  await database?.drop();
});

/** Pages that a statement reads. */
async function pages(sql: string): Promise<number> {
  const { rows } = await client.query(`EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ${sql}`);
  const { Plan: plan } = rows[0]["QUERY PLAN"][0];
  return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"];
}

describe("beside many topics of another role", () => {
  const calls: readonly (readonly [what: string, sql: (id: string) => string])[] = [
    ["the state of a message", (id) => `SELECT * FROM hawser.job(${id})`],
    ["keeping a result", (id) => `SELECT * FROM hawser.keep_result(${id}, 60000)`],
    ["coming after a message", (id) => `SELECT hawser.enqueue_after('t', 'x'::text, ARRAY[${id}]::bigint[])`],
    ["finding a message", (id) => `SELECT * FROM hawser.queue_find(${id}, NULL, 10)`],
    ["cancelling a message", (id) => `SELECT * FROM hawser.cancel(${id})`],
    [
      "cancelling the messages of a topic",
      () => "SELECT * FROM hawser.cancel_messages('peer', 't', NULL, NULL, 0, 100)",
    ],
    ["looking after the sequences", () => "SELECT * FROM hawser.behind_sequences(false)"],
  ];

  it.each(calls)("%s reads few pages", async (_, sql) => {
    // The first calls of a session read the catalog, and each new plan.
    for (let call = 0; call < 6; call++) {
      const { rows } = await client.query("SELECT hawser.enqueue('t', 'x'::text) AS id");
      const read = await pages(sql(rows[0].id));
      if (call === 5) expect(read).toBeLessThan(topics / 3);
    }
  });
});

it("a take asks once for each role that has messages", async () => {
  const roles = 200;
  await client.query(`
    INSERT INTO hawser_data.queue (topic, role, rank, id, payload)
    SELECT 'of many', 'role ' || n, n, n, 'x' FROM (SELECT nextval('hawser_data.outbox_id_seq') AS n FROM generate_series(1, ${roles})) AS s`);
  const worker = await TestWorker.open(client, { topics: ["of many"] });
  await client.query("BEGIN");
  expect(await worker.take({ most: 1 })).toHaveLength(1);
  const { rows } = await client.query<{ searches: number }>(
    "SELECT idx_scan::int AS searches FROM pg_stat_xact_all_tables WHERE relid = 'hawser_data.queue'::regclass",
  );
  await client.query("ROLLBACK");
  // With one search more of each role it would be five times.
  expect(rows[0]!.searches / roles).toBeGreaterThan(3);
  expect(rows[0]!.searches / roles).toBeLessThan(4.9);
});
