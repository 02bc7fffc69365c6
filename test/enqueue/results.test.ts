/** `keepMs`: what a handler has returned, and how far it is, as those see it who have enqueued. */
import pg from "pg";
import { expect, it } from "vitest";
import {
  cancel,
  enqueue,
  enqueueBatch,
  job,
  keepResults,
  Reject,
  schedule,
  waitFor,
} from "../../src/jobs-and-peers/peer/index.js";
import { failure } from "../peer/support/errors.js";
import { gate } from "../peer/support/gate.js";
import { sharedPeerWorld } from "../peer/support/shared-world.js";
import { startProxy } from "../store/support/proxy.js";
import { eventually } from "../support/eventually.js";
import { slowIt } from "../support/slow-it.js";
import { noTimersAbove } from "../support/timers.js";

const world = sharedPeerWorld();
const keepMs = 60_000;

it.each([true, false])("is what the handler has returned (transactional: %s)", async (transactional) => {
  const held = gate();
  const b = await world.working("b-1", { transactional }, async (message) => {
    message.progress({ pages: 1 });
    for (let pages = 2; pages <= 100; pages += 1) message.progress({ pages });
    await held.opened;
    return { text: message.text(), umlaut: "ä\0" };
  });
  const id = await enqueue(world, "b", "x", { keepMs });
  await eventually("its progress is told", async () => (await job(world, id)).progress !== undefined);
  expect(await job(world, id)).toMatchObject({
    state: "running",
    topic: "b",
    listener: `b-1:${process.pid}`,
    result: undefined,
  });
  // One at once, and the last one within a second.
  expect((await world.query<{ progress: string }>("SELECT progress FROM hawser_data.queue"))[0]?.progress).toMatch(
    /^\{"pages":(1|100)\}$/,
  );
  const waiting = waitFor(world.url, id);
  held.open();
  expect(await waiting).toMatchObject({
    ...{ state: "done", attempts: 1, result: { text: "x", umlaut: "ä\0" }, error: undefined },
    ...{ endedAt: expect.any(Date), durationMs: expect.any(Number), expiresAt: expect.any(Date) },
  });
  expect(await waitFor(world.url, String(id), { timeoutMs: 0 })).toMatchObject({ state: "done" });
  expect(b.texts).toEqual(["x"]);
});

it("uses no attempts for a progress or a reply that is always refused: the job is a dead letter at once", async () => {
  const b = await world.working("b-1", {}, async (message) => {
    if (message.text() === "progress") message.progress("x".repeat(1_024));
    else await message.reply("to nobody");
  });
  const ids = [await enqueue(world, "b", "progress", { keepMs }), await enqueue(world, "b", "reply", { keepMs })];
  const jobs = await Promise.all(ids.map((id) => waitFor(world.url, id)));
  expect(jobs).toMatchObject([
    { state: "dead", attempts: 1, error: { code: "invalid_argument", message: expect.stringContaining("1026 bytes") } },
    { state: "dead", attempts: 1, error: { code: "no_listener", message: expect.stringContaining("no recipient") } },
  ]);
  expect(b.texts.length).toBe(2);
});

it("is kept by message: others cost no row, and are unknown when they have ended", async () => {
  const b = await world.working("b-1", {}, (message) => {
    message.progress(1);
    return message.text();
  });
  const id = await enqueue(world, "b", "x");
  await b.received.length(1);
  await eventually("it is handled", async () => (await world.storedMessages()) === 0);
  expect(await job(world, id)).toMatchObject({ state: "unknown", topic: undefined });
  expect(await waitFor(world.url, id)).toMatchObject({ state: "unknown" });
  expect(await world.query("SELECT FROM hawser_data.results")).toEqual([]);
});

it("is that of the attempt that has committed", async () => {
  await world.working("b-1", { transactional: true }, ({ attempt, client }) => {
    if (attempt === 1) throw new Error("once");
    return client.query("SELECT 17 AS n").then(({ rows }) => rows[0].n as number);
  });
  const client = new pg.Client({ connectionString: world.url });
  await client.connect();
  await client.query("BEGIN");
  const id = await enqueue(client, "b", "x", { keepMs, uniqueKey: "k", delayMs: 1 });
  expect(await job(world, id)).toMatchObject({ state: "unknown" });
  await client.query("COMMIT");
  await client.end();
  expect(await waitFor(world.url, id)).toMatchObject({ state: "done", attempts: 2, result: 17 });
});

it("is by message of a batch, of what the handler returns in its order", async () => {
  const b = world.worker("b-1");
  await b.handleBatch("b", { transactional: true, maxMessages: 3, waitMs: 60_000 }, (messages, batch) => {
    const bad = messages.find((message) => message.text() === "bad");
    if (bad !== undefined) batch.fail(bad, new Reject("no"));
    return messages.map((message) => message.text().toUpperCase());
  });
  await b.start();
  const ids = [];
  for (const text of ["x", "bad", "y"]) ids.push(await enqueue(world, "b", text, { keepMs }));
  expect(await Promise.all(ids.map((id) => waitFor(world.url, id)))).toMatchObject([
    { state: "done", result: "X" },
    { state: "dead", error: { code: "rejected", message: expect.stringContaining("no") } },
    { state: "done", result: "Y" },
  ]);
});

it("is that of each message of a batch that was enqueued by one call, which commits with all of them", async () => {
  await world.working("b-1", {}, (message) => message.text().toUpperCase());
  const ids = await enqueueBatch(world, "b", ["x", "y", "z"], { keepMs, priority: 3 });
  expect((await Promise.all(ids.map((id) => waitFor(world.url, id)))).map(({ result }) => result)).toEqual([
    ...["X", "Y", "Z"],
  ]);
  const later = await enqueueBatch(world, "b", ["x", "y"], { keepMs, delayMs: 1 });
  expect((await Promise.all(later.map((id) => waitFor(world.url, id)))).map(({ state }) => state)).toEqual([
    ...["done", "done"],
  ]);
});

it("is that of each message of a topic that keeps results, those of schedules too", async () => {
  await keepResults(world, "b", keepMs);
  const b = await world.working("b-1", {}, (message) => message.text().toUpperCase());
  const id = await enqueue(world, "b", "x");
  expect(await waitFor(world.url, id)).toMatchObject({ state: "done", result: "X" });
  await schedule(world, "often", { cron: "* * * * * *", to: "b", payload: "tick" });
  const results = () => world.query<{ result: string }>("SELECT result FROM hawser_data.results ORDER BY id");
  await eventually("an occurrence has ended", async () => (await results()).length > 1);
  expect((await results())[1]).toEqual({ result: '"TICK"' });
  expect(b.texts.slice(0, 2)).toEqual(["x", "tick"]);
  await expect(enqueue(world, "b", "x", { all: true })).rejects.toMatchObject({ code: "22023" });
  await keepResults(world, "b", null);
  await failure("invalid_argument", keepResults(world, "b", 999));
  await expect(keepResults(world, "a:b", null)).rejects.toThrow("must not contain ':'");
});

it.each([
  ["longer than 64 KiB", () => "x".repeat(70_000)],
  ["no JSON", () => 17n],
])("that is %s makes the message a dead letter", async (_, result) => {
  const b = await world.working("b-1", {}, result);
  const id = await enqueue(world, "b", "x", { keepMs });
  expect(await waitFor(world.url, id)).toMatchObject({ state: "dead", attempts: 1, error: { code: "rejected" } });
  expect(b.texts).toEqual(["x"]);
});

it("is known of what was cancelled, by a pool, too, which has its clients back", async () => {
  const pool = new pg.Pool({ connectionString: world.url });
  const id = await enqueue(pool, "b", "x", { keepMs });
  expect(await waitFor(pool, id, { timeoutMs: 0 })).toMatchObject({ state: "waiting" });
  const waiting = waitFor(pool, id);
  expect(await cancel(pool, id)).toBe("cancelled");
  expect(await waiting).toMatchObject({ state: "cancelled", result: undefined });
  await pool.end();
});

it("is refused where it means nothing", async () => {
  const refused = async (options: object) => await failure("invalid_argument", enqueue(world, "b", "x", options));
  await refused({ keepMs: 999 });
  await refused({ keepMs: 604_800_001 });
  await refused({ keepMs: "1h" });
  await refused({ keepMs, all: true });
  await failure("invalid_argument", enqueue(world, { subject: "a" }, "x", { keepMs }));
  await failure("invalid_argument", enqueueBatch(world, "b", ["x"], { keepMs, all: true }));
  await failure("invalid_argument", enqueueBatch(world, { subject: "a" }, ["x"], { keepMs }));
  await failure("invalid_argument", waitFor(world.url, 1n, { timeoutMs: -1 }));
  await failure("invalid_argument", waitFor("http://a", 1n));
});

it.each([job, waitFor, cancel] as const)(
  "is not looked for by what is no id: %o",
  async (ask: (from: never, id: string) => Promise<unknown>) => {
    for (const id of ["", "x", "1.5", "9223372036854775808", 17, undefined]) {
      const error = await failure("invalid_argument", ask(world.url as never, id as string));
      expect(error.message).toContain(`id ${id}: must be a bigint that enqueue returned, or its digits as a string`);
    }
  },
);

it("is waited for no longer than the time limit says, whatever the connection does", async () => {
  const id = await enqueue(world, "b", "x", { keepMs });
  await using proxy = await startProxy(world.url);
  const waiting = failure("store_failed", waitFor(proxy.url, id, { timeoutMs: 1_000 }));
  // Not the time limits of connections and statements.
  noTimersAbove(5_000);
  const isAnswered =
    "SELECT FROM pg_stat_activity WHERE application_name = 'hawser: jobs' AND state = 'idle' AND query LIKE '%hawser.job%'";
  await eventually("it has looked", async () => (await world.query(isAnswered)).length > 0);
  proxy.freeze();
  const error = await waiting;
  expect(error.message).toContain("has not answered within timeoutMs (1000 ms) and 2000 ms more");
  expect(error.retryable).toBe(true);
});

slowIt("is found over another connection when the one of the wait has fallen silent", async () => {
  const id = await enqueue(world, "b", "x", { keepMs });
  await using proxy = await startProxy(world.url);
  const waiting = waitFor(proxy.url, id, { timeoutMs: 120_000 });
  const isAnswered =
    "SELECT FROM pg_stat_activity WHERE application_name = 'hawser: jobs' AND state = 'idle' AND query LIKE '%hawser.job%'";
  await eventually("it has looked", async () => (await world.query(isAnswered)).length > 0);
  proxy.freezePresent();
  const b = await world.working("b-1");
  await b.received.length(1);
  expect(await waiting).toMatchObject({ state: "done" });
});
