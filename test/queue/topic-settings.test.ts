/** Settings of topics, which operators change: what the functions of workers do with them. */
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { queueFunctions } from "../../generated/ts/rows/queue.js";
import {
  cancel,
  enqueue as enqueueMessage,
  enqueueBatch as enqueueMessageBatch,
  job,
  keepResults,
  limitTopic,
  pauseTopic,
  resumeTopic,
  schedule,
  unschedule,
} from "../../src/jobs-and-peers/queue/enqueue/index.js";
import { listTopics, withCommandDatabase } from "../../src/operating/operate/index.js";
import { type Login, login } from "../installation/support/logins.js";
import { type World, world } from "../store/support/world.js";
import { enqueue, TestWorker, textsOf } from "./support/test-worker.js";

let w: World;
let client: pg.Client;
let other: pg.Client;

beforeAll(async () => {
  w = await world();
  client = w.operator;
  other = await w.connect();
});
afterAll(() => w?.[Symbol.asyncDispose]());
beforeEach(async () => {
  await client.query(
    "TRUNCATE hawser_data.queue, hawser_data.workers, hawser_peer_data.listeners, hawser_data.topic_settings",
  );
});

const pause = (topic: string, on = client) => queueFunctions(on).pauseTopic({ topic });
const resume = async (topic: string, on = client) => (await queueFunctions(on).resumeTopic({ topic })).resumed;
async function connected({ url }: Login): Promise<pg.Client> {
  const session = new pg.Client({ connectionString: url });
  await session.connect();
  return session;
}

const pausedOf = async ({ id }: TestWorker) =>
  (await queueFunctions(client).extend({ worker: id, looks: false, running: null })).pausedTopics;

it.each(["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])(
  "what a transaction of a user calls leaves no setting in it, at the level %s",
  async (level) => {
    const read =
      "SELECT name, setting FROM pg_settings WHERE name <> 'synchronous_commit' AND name !~ '^(plpgsql|hawser)[.]'";
    await other.query(`BEGIN ISOLATION LEVEL ${level}`);
    const before = (await other.query(read)).rows;
    const id = await enqueueMessage(other, "t", "x", { uniqueKey: "u", delayMs: 60_000 });
    await enqueueMessage(other, "t", "x", { key: "k", after: [id], keepMs: 1_000 });
    await enqueueMessageBatch(other, "t", ["a", "b"]);
    await enqueueMessage(other, { subject: "s" }, "x");
    expect((await job(other, id)).state).toBe("later");
    await cancel(other, id);
    await limitTopic(other, "t", { rate: "10/s", running: 3 });
    await pauseTopic(other, "t");
    await resumeTopic(other, "t");
    await keepResults(other, "t", 5_000);
    await schedule(other, "s", { cron: "0 3 * * *", to: "t" });
    await unschedule(other, "s");
    expect((await other.query(read)).rows).toEqual(before);
    await other.query("ROLLBACK");
  },
);

describe("a paused topic", () => {
  it("gives nothing, and is no burden for others", async () => {
    const worker = await TestWorker.open(client, { topics: ["t", "u"] });
    for (const topic of ["t", "u"]) await enqueue(client, topic, [`${topic} first`]);
    await enqueue(client, "t", ["t urgent"], { priority: 7 });
    expect(await pause("t")).toEqual({ pausedAt: expect.any(Date), pausedBy: "postgres", changed: true });
    expect(textsOf(await worker.take())).toEqual(["u first"]);
    expect(await pausedOf(worker)).toEqual(["t"]);
    expect(await resume("t")).toBe(true);
    expect(await pausedOf(worker)).toEqual([]);
    expect(textsOf(await worker.take())).toEqual(["t urgent", "t first"]);
    expect((await client.query("SELECT FROM hawser_data.topic_settings")).rowCount).toBe(0);
  });

  it("lets messages that are handled end, be put off and be given back", async () => {
    const worker = await TestWorker.open(client);
    await enqueue(client, "t", ["a", "b", "c"]);
    const [a, b, c] = await worker.take();
    await pause("t");
    await worker.done(a!);
    expect(await worker.retry(b!, 0)).toEqual([b!.id]);
    expect(await worker.giveBack(c!)).toEqual([c!.id]);
    expect(await worker.take({ looksBehind: true })).toEqual([]);
    await resume("t");
    expect(textsOf(await worker.take({ looksBehind: true }))).toEqual(["b", "c"]);
  });

  it("keeps since when and by whom when it is paused again, and is not resumed twice", async () => {
    await using carol = await login(w.url, "IN ROLE hawser_peer");
    const session = await connected(carol);
    const { pausedAt } = await pause("t", session);
    await session.end();
    expect(await pause("t")).toEqual({ pausedAt, pausedBy: carol.role, changed: false });
    expect([await resume("t"), await resume("t"), await resume("never")]).toEqual([true, false, false]);
  });

  it("begins and ends with the operator's transaction, which notifies the workers", async () => {
    const heard: string[] = [];
    other.on("notification", ({ channel, payload }) => heard.push(`${channel} ${payload}`));
    await other.query("LISTEN hawser_topic_settings");
    const worker = await TestWorker.open(other);
    await enqueue(client, "t", ["a"]);
    await client.query("BEGIN");
    await pause("t");
    expect(textsOf(await worker.take())).toEqual(["a"]);
    await client.query("ROLLBACK");
    expect(await pausedOf(worker)).toEqual([]);
    await pause("t");
    await pause("t");
    await resume("t");
    await other.query("UNLISTEN hawser_topic_settings");
    expect(heard).toEqual(["hawser_topic_settings t", "hawser_topic_settings t"]);
  });

  it("is listed with its listeners, or alone, and what waits for it has a state of its own", async () => {
    await client.query(
      "INSERT INTO hawser_peer_data.listeners (topic, addr, listener_name) VALUES ('t', '127.0.0.1:1', 'l'), ('u', '127.0.0.1:1', 'l')",
    );
    const { pausedAt } = await pause("t");
    await pause("nobody's");
    await enqueue(client, "t", ["a"]);
    await enqueue(client, "u", ["b"]);
    const listed = await withCommandDatabase(w.url, (database) => listTopics(database));
    expect(
      listed.map((each) => [
        each.topic,
        each.state,
        each.waiting,
        each.listeners.map(({ name }) => name),
        each.pausedBy,
      ]),
    ).toEqual([
      ["u", "stopped", 1, ["l"], null],
      ["nobody's", "paused", 0, [], "postgres"],
      ["t", "paused", 1, ["l"], "postgres"],
    ]);
    expect(listed[2]).toMatchObject({ pausedAt });
    const { rows } = await client.query("SELECT topic, state FROM hawser.backlog(100) ORDER BY topic");
    expect(rows).toEqual([
      { topic: "t", state: "paused" },
      { topic: "u", state: "stopped" },
    ]);
  });

  it("is paused and resumed by members of hawser_peer alone", async () => {
    for (const role of ["hawser_nats", "hawser_viewer", "hawser_bridge"]) {
      await using stranger = await login(w.url, `IN ROLE ${role}`);
      const session = await connected(stranger);
      await expect(pause("t", session)).rejects.toMatchObject({ code: "42501" });
      await expect(resume("t", session)).rejects.toMatchObject({ code: "42501" });
      await session.end();
    }
  });
});

describe("a topic with limits", () => {
  const limit = async (
    given: Partial<Omit<Parameters<ReturnType<typeof queueFunctions>["limitTopic"]>[0], "topic">>,
  ) => {
    const none = { rate: null, burst: null, running: null, runningPerKey: null, keyHeader: null };
    return (await queueFunctions(client).limitTopic({ topic: "t", ...none, ...given })).limited;
  };
  const waits = async (worker: TestWorker): Promise<(number | null)[]> => {
    const rows = await queueFunctions(client).take({
      ...{ worker: worker.id, most: 100, maxBytes: 1_000_000n, topics: ["t"], after: null },
    });
    return rows.flatMap(({ waitMs }) => (waitMs === null ? [] : [waitMs]));
  };

  it("gives no more than may run, whichever worker asks, and counts what has ended no more", async () => {
    const [one, two] = [await TestWorker.open(client), await TestWorker.open(client)];
    await enqueue(client, "t", ["a", "b", "c", "d", "e", "f"]);
    expect(await limit({ running: 3 })).toBe(true);
    const [a, b] = await one.take({ most: 2 });
    expect(textsOf([a!, b!])).toEqual(["a", "b"]);
    const [c, ...more] = await two.take();
    expect(textsOf([c!, ...more])).toEqual(["c"]);
    expect(await waits(one)).toEqual([1_000]);
    await one.done(a!);
    expect(textsOf(await one.take())).toEqual(["d"]);
    await two.retry(c!, 3_600_000);
    expect(textsOf(await one.take())).toEqual(["e"]);
    await one.giveUp(b!);
    await two.close();
    expect(textsOf(await one.take())).toEqual(["f"]);
    expect(await waits(one)).toEqual([1_000]);
  });

  it("has a state of its own for what its limits hold up, and none for what its workers have", async () => {
    const worker = await TestWorker.open(client);
    const states = async () =>
      (await client.query("SELECT state, sum(messages)::integer AS n FROM hawser.backlog(100) GROUP BY 1 ORDER BY 1"))
        .rows;
    await enqueue(client, "t", ["a", "b", "c"]);
    await limit({ running: 2 });
    expect(textsOf(await worker.take({ most: 1 }))).toEqual(["a"]);
    expect(await states()).toEqual([{ state: "running", n: 3 }]);
    expect(textsOf(await worker.take())).toEqual(["b"]);
    const held = [
      { state: "limited", n: 1 },
      { state: "running", n: 2 },
    ];
    expect(await states()).toEqual(held);
    await limit({ rate: "1/d", burst: 1 });
    expect(await states()).toEqual([{ state: "running", n: 3 }]);
    await limit({ runningPerKey: 2 });
    expect(await states()).toEqual(held);
  });

  it("counts what a worker has that stands still, until it has ended", async () => {
    const [still, other] = [await TestWorker.open(client, { leaseMs: 1_000 }), await TestWorker.open(client)];
    await enqueue(client, "t", ["a", "b"]);
    await limit({ running: 1 });
    expect(textsOf(await still.take())).toEqual(["a"]);
    await client.query("UPDATE hawser_data.workers SET beat_at = beat_at - interval '1 hour' WHERE id = $1", [
      still.id,
    ]);
    expect(await other.take()).toEqual([]);
    expect(await other.extend()).toEqual([still.id]);
    expect(textsOf(await other.take({ looksBehind: true }))).toEqual(["a"]);
  });

  it("counts what workers have when it is limited, and nothing that they give back", async () => {
    const worker = await TestWorker.open(client);
    await enqueue(client, "t", ["a", "b", "c", "d"]);
    const [, , c] = await worker.take({ most: 3 });
    await limit({ running: 3 });
    expect(
      (await queueFunctions(client).extend({ worker: worker.id, looks: false, running: null })).limitedTopics,
    ).toEqual(["t"]);
    expect(await worker.take()).toEqual([]);
    await worker.giveBack(c!);
    expect(textsOf(await worker.take({ looksBehind: true }))).toEqual(["c"]);
    expect(await limit({})).toBe(false);
    expect(textsOf(await worker.take())).toEqual(["d"]);
    expect((await client.query("TABLE hawser_data.topic_starts")).rowCount).toBe(0);
  });

  it("starts a burst, then as many as the rate allows, and says when to ask again", async () => {
    const worker = await TestWorker.open(client);
    await enqueue(client, "t", ["a", "b", "c", "d", "e"]);
    await limit({ rate: "10/h", burst: 3 });
    expect(textsOf(await worker.take())).toEqual(["a", "b", "c"]);
    const [first] = await waits(worker);
    expect(first).toBe(60_000);
    const pass = (time: string) =>
      client.query(
        "UPDATE hawser_data.topic_settings SET full_at_us = full_at_us - 1e6 * extract(epoch FROM $1::interval)",
        [time],
      );
    await pass("6 minutes");
    expect(textsOf(await worker.take())).toEqual(["d"]);
    expect(await worker.take()).toEqual([]);
    await pass("5 minutes 30 seconds");
    const [second] = await waits(worker);
    expect(second).toBeGreaterThan(20_000);
    expect(second).toBeLessThanOrEqual(30_000);
    // Another rate begins with as much of the burst as was left.
    await limit({ rate: "10/s", burst: 3 });
    expect((await waits(worker))[0]).toBeLessThanOrEqual(100);
  });

  it("is not stopped by a clock that was set back", async () => {
    const worker = await TestWorker.open(client);
    await enqueue(client, "t", ["a"]);
    await limit({ rate: "100/s", burst: 1 });
    await client.query(
      "UPDATE hawser_data.topic_settings SET full_at_us = full_at_us + 1e6 * extract(epoch FROM now() + '1 day'::interval)",
    );
    expect((await waits(worker))[0]).toBeLessThanOrEqual(20);
    const [row] = (
      await client.query("SELECT full_at_us / 1e6 - extract(epoch FROM now()) AS ahead FROM hawser_data.topic_settings")
    ).rows;
    expect(Number(row.ahead)).toBeLessThan(1);
  });

  it("gives no more of one key than may run, and passes the rest of it", async () => {
    const [one, two] = [await TestWorker.open(client), await TestWorker.open(client)];
    const of = (tenant: string) => ({ headers: [["Tenant", tenant]] as const });
    await enqueue(client, "t", ["a1", "a2", "a3"], of("a"));
    await enqueue(client, "t", ["b1", "b2"], of("b"));
    await enqueue(client, "t", ["free"]);
    await limit({ runningPerKey: 2, keyHeader: "tenant" });
    const first = await one.take({ most: 3 });
    expect(textsOf(first)).toEqual(["a1", "a2", "b1"]);
    expect(textsOf(await two.take())).toEqual(["b2", "free"]);
    expect(await two.take({ looksBehind: true })).toEqual([]);
    await one.done(first[0]!);
    expect(textsOf(await two.take({ looksBehind: true }))).toEqual(["a3"]);
  });

  it("counts what runs of a key for each role alone, and the end of one starts the next of its role", async () => {
    const [one, two] = [await TestWorker.open(client), await TestWorker.open(client)];
    const of = (role: string) => ({ role, headers: [["tenant", "a"]] as const });
    await enqueue(client, "t", ["x1", "x2"], of("x"));
    await limit({ runningPerKey: 1, keyHeader: "tenant" });
    const [x1] = await one.take();
    expect(textsOf([x1!])).toEqual(["x1"]);
    await enqueue(client, "t", ["y1", "y2", "y3"], of("y"));
    const [y1, ...more] = await two.take({ looksBehind: true });
    expect(textsOf([y1!, ...more])).toEqual(["y1"]);
    const waiting =
      "SELECT convert_from(payload, 'UTF8') AS text FROM hawser_data.queue WHERE behind IS NOT NULL ORDER BY id";
    const waits = async () => (await client.query(waiting)).rows.map(({ text }) => text);
    expect(await waits()).toEqual(["x2", "y2", "y3"]);
    await two.done(y1!);
    expect(textsOf(await two.take({ looksBehind: true }))).toEqual(["y2"]);
    expect(await waits()).toEqual(["x2", "y3"]);
    await one.done(x1!);
    expect(textsOf(await two.take({ looksBehind: true }))).toEqual(["x2"]);
    expect(await waits()).toEqual(["y3"]);
  });

  it("starts a message with the next beat that a transaction had locked when the one before it ended", async () => {
    const worker = await TestWorker.open(client);
    const [, second] = await enqueue(client, "t", ["a1", "a2"], { headers: [["tenant", "a"]] });
    await limit({ runningPerKey: 1, keyHeader: "tenant" });
    const [first] = await worker.take();
    await other.query("BEGIN");
    expect(await cancel(other, second!)).toBe("cancelled");
    await worker.done(first!);
    expect(await worker.take({ looksBehind: true })).toEqual([]);
    await other.query("ROLLBACK");
    await worker.extend();
    expect(textsOf(await worker.take({ looksBehind: true }))).toEqual(["a2"]);
  });

  it("gives roles their places and starts in turn, however many messages of one come first", async () => {
    const worker = await TestWorker.open(client);
    for (const given of [{ running: 4 }, { rate: "1/d", burst: 4 }]) {
      await client.query("TRUNCATE hawser_data.queue, hawser_data.topic_settings");
      await enqueue(
        client,
        "t",
        Array.from({ length: 200 }, () => "x"),
        { role: "x" },
      );
      await enqueue(client, "t", ["y", "y"], { role: "y" });
      await limit(given);
      expect(textsOf(await worker.take({ looksBehind: true })).toSorted()).toEqual(["x", "x", "y", "y"]);
    }
  });

  it("finds what may start behind many messages of a key that may not", async () => {
    const [one, two] = [await TestWorker.open(client), await TestWorker.open(client)];
    const many = Array.from({ length: 1_200 }, (_, number) => `a${number}`);
    await enqueue(client, "t", many, { headers: [["tenant", "a"]] });
    await enqueue(client, "t", ["b"], { headers: [["tenant", "b"]] });
    await limit({ runningPerKey: 1, keyHeader: "tenant" });
    expect(textsOf(await one.take())).toEqual(["a0"]);
    const found: string[] = [];
    for (let takes = 0; found.length === 0 && takes < 4; takes += 1) found.push(...textsOf(await two.take()));
    expect(found).toEqual(["b"]);
  });

  it("starts one message of a key at a time, in order, and takes no other with it", async () => {
    const [one, two] = [await TestWorker.open(client), await TestWorker.open(client)];
    await enqueue(client, "t", ["k1", "k2"], { key: "k" });
    await enqueue(client, "t", ["k3"], { key: "k", role: "billing" });
    await enqueue(client, "t", ["l1"], { key: "l" });
    await limit({ running: 10 });
    const taken = await one.take();
    // A role has keys of its own.
    expect(textsOf(taken).toSorted()).toEqual(["k1", "k3", "l1"]);
    expect(await two.take({ looksBehind: true })).toEqual([]);
    await one.done(taken.find(({ payload }) => payload.toString() === "k1")!);
    expect(textsOf(await two.take({ looksBehind: true }))).toEqual(["k2"]);
  });

  it("is no burden for other topics, and waits for no other worker", async () => {
    const [one, two] = [
      await TestWorker.open(other, { topics: ["t", "u"] }),
      await TestWorker.open(client, { topics: ["t", "u"] }),
    ];
    await enqueue(client, "t", ["t1", "t2"]);
    await enqueue(client, "u", ["u1"]);
    await limit({ running: 1 });
    expect(textsOf(await two.take())).toEqual(["u1"]);
    await other.query("BEGIN");
    const rows = await queueFunctions(other).take({
      worker: one.id,
      most: 1,
      maxBytes: 1n,
      topics: ["t"],
      after: null,
    });
    expect(rows.filter(({ payload }) => payload !== null)).toHaveLength(1);
    const [wait] = await waits(two);
    expect(wait).toBeLessThanOrEqual(21);
    await other.query("COMMIT");
    expect(await waits(two)).toEqual([1_000]);
  });

  it("makes the copies of a message for all, of which each counts when it starts", async () => {
    const [one, two] = [await TestWorker.open(client, { name: "one" }), await TestWorker.open(client, { name: "two" })];
    await enqueue(client, "t", ["a"], { toAll: true });
    await limit({ running: 1 });
    expect(await one.take()).toEqual([]);
    expect(textsOf(await one.take({ looksBehind: true }))).toEqual(["a"]);
    expect(await two.take({ looksBehind: true })).toEqual([]);
  });

  it("refuses what is no limit", async () => {
    for (const [given, message] of [
      [{ rate: "100" }, 'the argument rate is "100", and must be a number and a unit'],
      [{ rate: "0/s" }, "must be a number and a unit"],
      [{ burst: 3 }, "the argument burst belongs to a rate"],
      [{ keyHeader: "tenant" }, "the argument key_header belongs to running_per_key"],
      [{ running: 0 }, "must be 1 to 10000"],
    ] as const)
      await expect(limit(given)).rejects.toThrow(message);
  });
});
