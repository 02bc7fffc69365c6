/** Samples of topics, subscriptions and streams, on the level of SQL: what they count, where they cut, and what they do not believe. */
import pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { queueFunctions, type SamplesResult, sampleFunctions } from "../../generated/ts/rows/queue.js";
import { queueConstants, sampleConstants } from "../../generated/ts/settings/queue.js";
import { login } from "../installation/support/logins.js";
import { type World, world } from "../store/support/world.js";
import { TestWorker } from "./support/test-worker.js";

let w: World;
let client: pg.Client;
let work: pg.Client;

beforeAll(async () => {
  w = await world();
  client = w.operator;
  work = await w.connect();
});
afterAll(() => w?.[Symbol.asyncDispose]());
beforeEach(async () => {
  for (const each of [client, work]) await each.query("ROLLBACK");
  await client.query(
    `TRUNCATE hawser_data.queue, hawser_data.workers, hawser_data.dead_letters, hawser_data.samples, hawser_data.ended_workers, hawser_data.topic_settings,
              hawser_bridge_data.nats_handlers, hawser_bridge_data.stream_subscriptions, hawser_bridge_data.saved_messages`,
  );
  await client.query(
    "UPDATE hawser_data.sampling SET sampled_at = NULL, dead_letter = 0, totals = '{}', positions = '{}'",
  );
});

const { countedMessages } = queueConstants;
const stepSeconds = sampleConstants.stepMs / 1_000;

const take = async (on = client): Promise<boolean> => (await sampleFunctions(on).takeSample()).sampled;
/** Lets time pass: what was sampled is so many steps older. */
async function steps(count = 1): Promise<void> {
  await client.query("BEGIN");
  await client.query(`UPDATE hawser_data.samples SET slot = slot + 10000 WHERE step = ${stepSeconds}`);
  await client.query(
    `UPDATE hawser_data.samples SET slot = (slot - 10000 - $1 + 1000 * ${sampleConstants.slots}) % ${sampleConstants.slots},
            sampled_at = sampled_at - $1 * interval '${stepSeconds} s' WHERE step = ${stepSeconds}`,
    [count],
  );
  await client.query(`UPDATE hawser_data.sampling SET sampled_at = sampled_at - $1 * interval '${stepSeconds} s'`, [
    count,
  ]);
  await client.query("COMMIT");
}
/** Takes a sample in a later step. */
async function next(): Promise<void> {
  await steps();
  expect(await take()).toBe(true);
}

interface Asked {
  readonly kind?: string;
  readonly since?: Date;
  readonly step?: number;
  readonly each?: boolean;
}

const read = (
  names: string[],
  { kind = "topic", since, step, each }: Asked = {},
  on = client,
): Promise<SamplesResult[]> =>
  sampleFunctions(on).samples({ kind, names, since: since ?? null, step: step ?? null, each: each ?? null });
/** Numbers of the newest sample, as they are in words below. */
async function newest(name: string | undefined, asked: Asked = {}): Promise<Record<string, unknown>> {
  const row = (await read(name === undefined ? [] : [name], asked)).at(-1)!;
  const { enqueued, handled, failed, dead, waiting, isComplete } = row;
  return Object.fromEntries(
    Object.entries({ enqueued, handled, failed, dead, waiting, isComplete }).map(([key, value]) => [
      key,
      typeof value === "bigint" ? Number(value) : value,
    ]),
  );
}

const enqueue = (count: number, topic = "t"): Promise<unknown> =>
  client.query("SELECT hawser.enqueue($1, 'x'::text) FROM generate_series(1, $2)", [topic, count]);
const report = (worker: TestWorker, running: unknown, on = work): Promise<unknown> =>
  queueFunctions(on).extend({ worker: worker.id, looks: false, running: JSON.stringify(running) });
const totals = (worker: TestWorker, of: Record<string, readonly number[]>): Promise<unknown> =>
  report(worker, { full: false, oldest_ms: 0, topics: {}, totals: of });

it("counts what came, what was handled, what failed and what was given up since the sample before", async () => {
  const worker = await TestWorker.open(work);
  await enqueue(5);
  expect(await take()).toBe(true);
  expect(await newest("t")).toEqual({
    enqueued: null,
    handled: null,
    failed: null,
    dead: null,
    waiting: 5,
    isComplete: true,
  });
  const [first, second, third] = await worker.take({ most: 3 });
  await worker.doneBatch(first!, second!);
  await worker.giveUp(third!);
  await enqueue(4);
  await totals(worker, { t: [2, 1, 130, 0, 1, 0, 1] });
  await next();
  expect(await newest("t")).toEqual({ enqueued: 4, handled: 2, failed: 1, dead: 1, waiting: 6, isComplete: true });
  const [row] = (await read(["t"])).slice(-1);
  expect(row).toMatchObject({ busyMs: 130n, durations: [0n, 1n, 0n, 1n] });
  expect(row!.oldestMs).toBeGreaterThan(0n);
  expect(Number(row!.coversMs)).toBeGreaterThanOrEqual(sampleConstants.stepMs);
  await next();
  expect(await newest("t")).toEqual({ enqueued: 0, handled: 0, failed: 0, dead: 0, waiting: 6, isComplete: true });
  expect(await newest(undefined)).toMatchObject({ waiting: 6 });
});

it("a topic that a sample does not name had nothing", async () => {
  await enqueue(1, "other");
  await take();
  await next();
  expect(await newest("t")).toEqual({ enqueued: 0, handled: 0, failed: 0, dead: 0, waiting: 0, isComplete: true });
});

it("takes one sample in a step, whoever asks, and says when the next step begins", async () => {
  await take();
  const { sampled, nextInMs } = await sampleFunctions(work).takeSample();
  expect(sampled).toBe(false);
  expect(Number(nextInMs)).toBeGreaterThan(0);
  expect(Number(nextInMs)).toBeLessThanOrEqual(sampleConstants.stepMs);
  await steps();
  await client.query("BEGIN");
  expect(await take()).toBe(true);
  // It waits for nobody.
  expect(await take(work)).toBe(false);
  await client.query("COMMIT");
  expect(await read([])).toHaveLength(2);
});

it("counts nothing after a gap, in which there are no samples", async () => {
  const worker = await TestWorker.open(work);
  await totals(worker, { t: [10, 0, 0] });
  await take();
  await enqueue(3);
  await totals(worker, { t: [30, 0, 0] });
  await steps(20);
  await take();
  expect(await newest("t")).toEqual({
    enqueued: null,
    handled: null,
    failed: null,
    dead: null,
    waiting: 3,
    isComplete: true,
  });
  expect(await read([])).toHaveLength(2);
  await totals(worker, { t: [31, 0, 0] });
  await next();
  expect(await newest("t")).toMatchObject({ handled: 1, enqueued: 1 });
});

it("the ring has an hour, whose rows are written again and again", async () => {
  await take();
  await client.query(
    `INSERT INTO hawser_data.samples SELECT ${stepSeconds}, n, now() - interval '2 hours', NULL, '{}' FROM generate_series(0, ${sampleConstants.slots - 1}) AS n
     ON CONFLICT DO NOTHING`,
  );
  expect(await read([])).toHaveLength(1);
  for (let nth = 0; nth < 3; nth += 1) await next();
  expect(await read([])).toHaveLength(4);
  const { rows } = await client.query("SELECT count(*)::integer AS count FROM hawser_data.samples WHERE step = $1", [
    stepSeconds,
  ]);
  expect(rows[0].count).toBe(sampleConstants.slots);
  await steps(sampleConstants.slots);
  expect(await read([])).toEqual([]);
});

it("one of the day has the sums of its samples, and what waited at their end", async () => {
  const sample = (nth: number, series: object) =>
    client.query(
      `INSERT INTO hawser_data.samples
       SELECT ${stepSeconds}, ($1::bigint % ${sampleConstants.slots})::integer, to_timestamp($1::bigint * ${stepSeconds} + 1), 15000, $2`,
      [nth, JSON.stringify({ topic: { named: series } })],
    );
  const folded = Math.floor(Date.now() / 1_000 / stepSeconds / sampleConstants.folded) - 1;
  const first = folded * sampleConstants.folded;
  await sample(first - 1, { t: [100, 100, 100, 100, 100, 100, 0] });
  await sample(first, { t: [5, 3, 1, 1, 9, 9_000, 1, 20, 0, 3], gone: [1, 0, 0, 0, 1, 5, 0] });
  await sample(first + 7, { t: [2, 4, 0, 0, 4, 2_000, 0, 30, 4] });
  await sample(first + sampleConstants.folded, { t: [100, 100, 100, 100, 100, 100, 0] });
  await client.query("SELECT hawser.fold_samples($1)", [folded]);
  const step = stepSeconds * sampleConstants.folded;
  const [row, ...others] = await read(["t"], { step });
  expect(others).toEqual([]);
  expect(row).toMatchObject({
    enqueued: 7n,
    handled: 7n,
    failed: 1n,
    dead: 1n,
    waiting: 4n,
    oldestMs: 2_000n,
    isComplete: false,
  });
  expect(row).toMatchObject({ coversMs: 30_000n, busyMs: 50n, durations: [4n, 3n] });
  expect(await newest("gone", { step })).toMatchObject({ enqueued: 1, waiting: 0 });
  expect((await read([], { step }))[0]).toMatchObject({ enqueued: 8n, waiting: 4n });
  await client.query("SELECT hawser.fold_samples($1)", [folded - 5]);
  expect(await read([], { step })).toHaveLength(1);
});

it("the first sample of a step of the day makes the one before", async () => {
  await take();
  await steps(1);
  const perFold = sampleConstants.folded;
  await client.query(
    `UPDATE hawser_data.sampling SET sampled_at = to_timestamp(floor(extract(epoch FROM now()) / ${stepSeconds * perFold}) * ${stepSeconds * perFold} - 1)`,
  );
  await client.query(
    `UPDATE hawser_data.samples AS s SET sampled_at = g.sampled_at, slot = floor(extract(epoch FROM g.sampled_at) / ${stepSeconds})::bigint % ${sampleConstants.slots}
       FROM hawser_data.sampling AS g WHERE s.step = ${stepSeconds}`,
  );
  await take();
  const { rows } = await client.query("SELECT step FROM hawser_data.samples ORDER BY step");
  expect(rows.map(({ step }) => step)).toEqual([stepSeconds, stepSeconds, stepSeconds * perFold]);
});

it("names those that hold most, and sums the others", async () => {
  const most = sampleConstants.namedSeries;
  await client.query(
    `SELECT hawser.enqueue('t' || n, 'x'::text) FROM generate_series(1, $1) AS n CROSS JOIN generate_series(1, CASE WHEN n > 10 THEN 2 ELSE 1 END)`,
    [most + 10],
  );
  await take();
  const each = await read([], { each: true });
  expect(each).toHaveLength(most + 1);
  const rest = each.find(({ name }) => name === null)!;
  expect(rest).toMatchObject({ waiting: 10n, enqueued: null });
  expect(each.map(({ name }) => name)).not.toContain("t1");
  expect(await newest("t1")).toMatchObject({ waiting: null, isComplete: null });
  expect(await newest("t11")).toMatchObject({ waiting: 2 });
  expect(await newest(undefined)).toMatchObject({ waiting: 2 * most + 10 });
  // What had no name before, and has one now, has not come since.
  await client.query("DELETE FROM hawser_data.queue WHERE topic <> 't1'");
  await next();
  expect(await newest("t1")).toMatchObject({ waiting: 1, enqueued: 0 });
});

it("messages that wait for others are not counted: they wait for no worker", async () => {
  await client.query(
    "INSERT INTO hawser_data.queue (topic, recipient, rank, id, payload, later) SELECT 't', '~', n, n, 'x', 'held' FROM generate_series(901, 903) AS n",
  );
  await enqueue(2);
  const { rows } = await client.query("SELECT sum(messages)::integer AS messages FROM hawser.backlog(100)");
  expect(rows).toEqual([{ messages: 5 }]);
  await take();
  expect(await newest("t")).toMatchObject({ waiting: 2 });
});

it("the totals of a worker count once: under a new id, after its end, and after its death", async () => {
  await take();
  const worker = await TestWorker.open(work);
  await totals(worker, { t: [5, 0, 0] });
  await next();
  expect(await newest("t")).toMatchObject({ handled: 5 });
  await worker.resume([]);
  await totals(worker, { t: [7, 0, 0] });
  await next();
  expect(await newest("t")).toMatchObject({ handled: 2 });
  await queueFunctions(work).closeWorker({ worker: worker.id, running: JSON.stringify({ totals: { t: [10, 0, 0] } }) });
  await next();
  expect(await newest("t")).toMatchObject({ handled: 3 });
  const killed = await TestWorker.open(work, { name: "killed" });
  await totals(killed, { t: [4, 0, 0] });
  await queueFunctions(work).endWorkers({ name: "killed" });
  await next();
  expect(await newest("t")).toMatchObject({ handled: 4 });
  const replaced = await TestWorker.open(work);
  await totals(replaced, { t: [8, 0, 0] });
  const worker2 = await TestWorker.open(work, { replaces: replaced.id });
  await totals(worker2, { t: [1, 0, 0] });
  await next();
  expect(await newest("t")).toMatchObject({ handled: 9 });
  await next();
  expect(await newest("t")).toMatchObject({ handled: 0 });
});

it("the end of a worker writes nothing where nobody takes samples, and only so much where somebody does", async () => {
  const ended = async (): Promise<number> => (await client.query("SELECT FROM hawser_data.ended_workers")).rowCount!;
  const close = async (): Promise<void> => {
    const worker = await TestWorker.open(work);
    await totals(worker, { t: [1, 0, 0] });
    await worker.close();
  };
  await close();
  expect(await ended()).toBe(0);
  await take();
  for (let nth = 0; nth < sampleConstants.endedWorkers + 5; nth += 1) await close();
  expect(await ended()).toBe(sampleConstants.endedWorkers);
  await next();
  expect(await ended()).toBe(0);
  expect(await newest("t")).toMatchObject({ handled: sampleConstants.endedWorkers });
  await steps(10);
  await close();
  expect(await ended()).toBe(0);
});

it("reads of a report only what has the form of totals, within what can be", async () => {
  const worker = await TestWorker.open(work);
  await take();
  const hostile = [
    [],
    "totals",
    { totals: 1 },
    { totals: [] },
    { totals: { t: 1, u: {}, v: "x", w: [["x"], { a: 1 }, null, "5"], x: [], "": [1], ["y".repeat(256)]: [7] } },
    { totals: { t: [-5, 1e300, -1e300, 1.5] } },
  ];
  for (const said of hostile) {
    await report(worker, said);
    await next();
    await read([]);
  }
  const most = BigInt(1_000) * (await read([])).at(-1)!.coversMs!;
  expect((await read(["t"])).at(-1)).toMatchObject({ handled: 0n, failed: most });
  for (const name of ["u", "v", "w", "x", "y".repeat(256)])
    expect(await newest(name)).toMatchObject({ handled: 0, failed: 0 });
  // A total that falls counts nothing.
  await totals(worker, { t: [100, 0, 0] });
  await next();
  await totals(worker, { t: [50, 0, 0] });
  await next();
  expect(await newest("t")).toMatchObject({ handled: 0 });
});

it("a role with many workers does not hide those of others", async () => {
  await using hostile = await login(w.url, "IN ROLE hawser_peer");
  await client.query(`SET ROLE ${hostile.role}`);
  for (let nth = 0; nth <= sampleConstants.workers; nth += 1) await TestWorker.open(client, { name: `h:${nth}` });
  await client.query("RESET ROLE");
  const worker = await TestWorker.open(work);
  await take();
  await totals(worker, { t: [3, 0, 0] });
  await next();
  expect(await newest("t")).toMatchObject({ handled: 3 });
});

it("a worker that was there before, and was not read, counts from its first reading on", async () => {
  const worker = await TestWorker.open(work);
  await totals(worker, { t: [1_000, 0, 0] });
  await client.query("UPDATE hawser_data.workers SET opened_at = opened_at - interval '1 hour'");
  await take();
  await client.query("UPDATE hawser_data.sampling SET totals = '{}'");
  await next();
  expect(await newest("t")).toMatchObject({ handled: 0 });
  await totals(worker, { t: [1_001, 0, 0] });
  await next();
  expect(await newest("t")).toMatchObject({ handled: 1 });
});

it("a count that was cut says so, and what came is counted at least", async () => {
  await client.query(
    `INSERT INTO hawser_data.queue (topic, recipient, rank, id, payload) SELECT 't', '', n, n, '' FROM generate_series(1, ${countedMessages + 10}) AS n`,
  );
  await take();
  expect(await newest("t")).toMatchObject({ waiting: countedMessages, isComplete: false });
  await client.query(`DELETE FROM hawser_data.queue WHERE rank <= ${countedMessages - 10_000}`);
  await next();
  expect(await newest("t")).toMatchObject({ enqueued: 0, waiting: 10_010, isComplete: true });
});

it("samples subscriptions and streams, as far as something is known of them", async () => {
  await client.query(`
    CREATE SCHEMA IF NOT EXISTS hawser_run;
    DO $$ BEGIN CREATE TYPE hawser_run.token_0123456789abcdef AS ENUM (); EXCEPTION WHEN duplicate_object THEN NULL; END $$;
    INSERT INTO hawser_bridge_data.nats_handlers (id, kind, subject, function_schema, function_name, argument_types, wrapper, token)
    VALUES (1, 'subscription', 'orders.>', 'public', 'book', 'bytea', 'a_0123456789abcdef', decode(repeat('00', 32), 'hex')),
           (2, 'stream', 'events', 'public', 'book', 'bytea', 'b_0123456789abcdef', decode(repeat('00', 32), 'hex')),
           (3, 'stream', 'some', 'public', 'book', 'bytea', 'c_0123456789abcdef', decode(repeat('00', 32), 'hex')),
           (4, 'responder', 'ask', 'public', 'book', 'bytea', 'd_0123456789abcdef', decode(repeat('00', 32), 'hex'));
    INSERT INTO hawser_bridge_data.stream_subscriptions (handler_id, name, stream, filters, consumer, start, position, lag, last_done_at)
    VALUES (2, 'events', 'E', '{}', 'c', 'all', 10, 5, extract(epoch FROM now() - interval '1 minute') * 1000000000),
           (3, 'some', 'E', '{a}', 'c', 'all', NULL, NULL, NULL);
    INSERT INTO hawser_bridge_data.saved_messages (handler_id, subject, payload, message_id) VALUES (1, 'orders.1', '', '1'), (1, 'orders.2', '', '2')`);
  await take();
  await client.query(`
    UPDATE hawser_bridge_data.stream_subscriptions SET position = 18, lag = 2 WHERE handler_id = 2;
    UPDATE hawser_bridge_data.stream_subscriptions SET position = 7, lag = 2 WHERE handler_id = 3;
    INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, handler_id)
    VALUES ('subscription', 'book', 'orders.1', '', 'x', 'x', 1, 1), ('subscription', 'book', 'a', '', 'x', 'x', 1, 2), ('subscription', 'book', 'a', '', 'x', 'x', 1, 9)`);
  await next();
  const book = await newest("orders.> public.book(bytea)", { kind: "subscription" });
  expect(book).toEqual({ enqueued: null, handled: null, failed: null, dead: 1, waiting: 2, isComplete: true });
  expect(await newest("events", { kind: "stream" })).toEqual({
    enqueued: 6,
    handled: 8,
    failed: null,
    dead: 1,
    waiting: 2,
    isComplete: true,
  });
  const [row] = (await read(["events"], { kind: "stream" })).slice(-1);
  expect(row!.oldestMs).toBeGreaterThanOrEqual(60_000n);
  expect(await newest("some", { kind: "stream" })).toMatchObject({ enqueued: null, handled: null, waiting: 2 });
  const kinds = (await read([], { kind: "stream", each: true })).map(({ name }) => name);
  expect(kinds).toEqual(["events", "some", "events", "some"]);
});

it("refuses a snapshot from before its lock, and takes no sample for a login that may not see one", async () => {
  await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
  await expect(take()).rejects.toThrow(/READ COMMITTED/);
  await client.query("ROLLBACK");
  await using viewer = await login(w.url, "IN ROLE hawser_viewer");
  await using stranger = await login(w.url, "");
  const connection = new pg.Client({ connectionString: viewer.url });
  await connection.connect();
  try {
    expect(await take(connection)).toBe(true);
    expect(await read([], {}, connection)).toHaveLength(1);
  } finally {
    await connection.end();
  }
  const outside = new pg.Client({ connectionString: stranger.url });
  await outside.connect();
  try {
    await expect(take(outside)).rejects.toThrow(/permission denied/);
  } finally {
    await outside.end();
  }
});
