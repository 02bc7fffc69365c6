/**
 * What the functions of workers read while the statistics say that the queue has pages and no rows: a VACUUM or ANALYZE of a queue that was just
 * drained leaves them so. A plan that reads the whole queue looks as cheap then as one that finds a row, and sessions keep it.
 */
import { randomUUID } from "node:crypto";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { enqueue, type Taken, TestWorker } from "./support/test-worker.js";

/** Messages of another topic, which wait. */
const waiting = 20_000;

let database: TestDatabase;
let client: pg.Client;

beforeAll(async () => {
  database = await testDatabase({ nats: false });
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
  await client.query(`
    INSERT INTO hawser_data.queue (topic, role, rank, id, key, payload)
    SELECT 'f', 'flood', n, n, CASE WHEN n % 2 = 0 THEN 'k' || n % 100 END, 'x'
      FROM (SELECT nextval('hawser_data.outbox_id_seq') AS n FROM generate_series(1, ${waiting})) AS s`);
  await client.query(`
    UPDATE pg_class SET relpages = 100, reltuples = 0
     WHERE oid IN (SELECT 'hawser_data.queue'::regclass UNION ALL SELECT indexrelid FROM pg_index WHERE indrelid = 'hawser_data.queue'::regclass)`);
});
afterAll(async () => {
  await client?.end();
  await database?.drop();
});

/** Pages that a statement reads. */
async function pages(sql: string, values: readonly unknown[]): Promise<number> {
  const { rows } = await client.query(`EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ${sql}`, [...values]);
  const { Plan: plan } = rows[0]["QUERY PLAN"][0];
  return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"];
}

/** Topics, recipients, roles and ranks, as parallel arrays. */
const places = (messages: readonly Taken[]): unknown[] =>
  (["topic", "recipient", "role", "rank"] as const).map((name) => messages.map((message) => String(message[name])));
/** The same of the first message alone. */
const place = ([message]: readonly Taken[]): unknown[] => places([message!]).map((list) => (list as string[])[0]);
const ids = (messages: readonly Taken[]): string[] => messages.map(({ id }) => String(id));

type Call = readonly [
  sql: string,
  /** Arguments, of ten messages that the worker has. */
  values: (messages: readonly Taken[], worker: string) => unknown[],
];

const calls: readonly Call[] = [
  ["hawser.extend($1, true)", (_, worker) => [worker]],
  ["hawser.take($1, 10, 1000000, NULL, '{}')", (_, worker) => [worker]],
  ["hawser.begin($1, $2, $3, $4, $5)", (messages, worker) => [worker, ...places(messages)]],
  ["hawser.begin_unique($1, $2, $3, $4, $5)", (messages, worker) => [worker, ...place(messages)]],
  ["hawser.done($1, $2, $3, $4, false)", (messages) => place(messages)],
  ["hawser.done_batch($1, $2, $3, $4, false)", (messages) => places(messages)],
  ["hawser.retry($1, $2, $3, $4, $5, 60000)", (messages, worker) => [worker, ...place(messages)]],
  [
    "hawser.give_up($1, $2, $3, $4, $5, 'handler_failed', 'no', NULL, NULL)",
    (messages, worker) => [worker, ...place(messages)],
  ],
  ["hawser.give_back($1, $2, $3, $4, $5, false)", (messages, worker) => [worker, ...places(messages)]],
  ["hawser.set_progress($1, $2, $3, $4, $5, '1')", (messages, worker) => [worker, ...place(messages)]],
  ["hawser.resume_worker($1, $1::bigint + 1, $2, $3, $4, $5)", (messages, worker) => [worker, ...places(messages)]],
  // What a worker has is only noted, and ended by that one.
  ["hawser.cancel_queued($1, $2, $3, $4)", (messages) => places(messages)],
  ["hawser.end_cancelled($1, $2)", (messages, worker) => [worker, messages.map(({ rank }) => String(rank))]],
  ["hawser.put_behind($1)", (messages) => [ids(messages)]],
  ["hawser.enqueue_after('after', 'x'::text, $1)", (messages) => [ids(messages)]],
  ["hawser.keep_result($1, 60000)", (messages) => [ids(messages)[0]]],
  ["hawser.job($1)", (messages) => [ids(messages)[0]]],
];

describe.each([undefined, "key"])("while the queue is said to have pages and no rows, with the key %s", (key) => {
  it.each(calls)("%s reads few pages", async (sql, values) => {
    const topic = randomUUID();
    const reads: number[] = [];
    for (let call = 0; call < 9; call++) {
      const worker = await TestWorker.open(client, { topics: [topic] });
      await enqueue(client, topic, [..."abcdefghij"], { ...(key === undefined ? {} : { key }), role: "postgres" });
      const taken = await worker.take({ most: 10 });
      expect(taken).toHaveLength(10);
      // To be ended, or free again.
      if (sql.includes("end_cancelled"))
        await client.query("SELECT hawser.cancel_queued($1, $2, $3, $4)", places(taken));
      if (/take|cancel_queued|enqueue_after/.test(sql) && call % 2 === 0) await worker.giveBack(...taken);
      const isCalled = !sql.includes("enqueue_after") || call % 2 === 0;
      const read = isCalled ? await pages(`SELECT * FROM ${sql}`, values(taken, String(worker.id))) : 0;
      reads.push(read);
      await worker.close();
      await client.query("DELETE FROM hawser_data.queue WHERE topic = $1", [topic]);
    }
    // The first call of a session reads the catalog, and so does one behind a change of what all databases share, as a role.
    expect(reads.toSorted((a, b) => a - b).at(-3)).toBeLessThan(waiting / 50);
  });
});
