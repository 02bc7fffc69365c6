/** The queue, in which enqueued messages are handled where they lie: each rule by its SQL functions. */

import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { queueConstants } from "../../generated/ts/settings/queue.js";
import { errorTable } from "../../src/foundation/errors/index.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { enqueue, type Taken, TestWorker, textsOf } from "./support/test-worker.js";

let database: TestDatabase;
let client: pg.Client;
let other: pg.Client;

beforeAll(async () => {
  database = await testDatabase({ nats: false });
  [client, other] = await Promise.all([connected(), connected()]);
});
afterAll(async () => {
  await Promise.all([client?.end(), other?.end()]);
  await database?.drop();
});
beforeEach(async () => {
  await client.query(
    "TRUNCATE hawser_data.queue, hawser_data.workers, hawser_data.dead_letters, hawser_peer_data.listeners, hawser_peer_data.peers",
  );
});

async function connected(): Promise<pg.Client> {
  const one = new pg.Client({ connectionString: database.url });
  await one.connect();
  return one;
}

const gone = { code: errorTable.message_gone.sqlstate };
const lost = { code: errorTable.lease_lost.sqlstate };

/** The time after which a worker that says nothing is ended has passed for it. */
async function silence({ id }: TestWorker): Promise<void> {
  await client.query("UPDATE hawser_data.workers SET beat_at = beat_at - interval '1 day' WHERE id = $1", [String(id)]);
}

/** What is to be tried again is due. */
async function pass(): Promise<void> {
  await client.query("UPDATE hawser_data.queue SET due_at = due_at - interval '1 day' WHERE due_at IS NOT NULL");
}

async function rows<Row extends pg.QueryResultRow>(sql: string, ...values: unknown[]): Promise<Row[]> {
  return (await client.query<Row>(sql, values)).rows;
}

describe("a message", () => {
  it("comes with its headers, those of origin and key first", async () => {
    const worker = await TestWorker.open(client);
    const [id] = await enqueue(client, "t", ["a"], { key: "k", headers: [["a", "b"]], origin: "shop-1:shop" });
    expect(await worker.take()).toEqual([
      {
        ...{ topic: "t", recipient: "", role: "shop", rank: id, id, key: "k", payload: Buffer.from("a"), attempts: 0 },
        ...{
          isSuspect: false,
          origin: "shop-1:shop",
          enqueuedAt: expect.any(Date),
          waitMs: null,
          isUnique: false,
          isKept: false,
          hasMore: false,
          wasRunning: false,
        },
        headers: [
          ["message-origin", "shop-1:shop:shop"],
          ["message-key", "k"],
          ["a", "b"],
        ],
      },
    ]);
  });

  it("has a number of the outbox, greater than those of messages before it", async () => {
    const ids = await enqueue(client, "t", ["a", "b", "c"]);
    const [last] = await rows("SELECT last_value AS id FROM hawser_data.outbox_id_seq");
    expect(ids).toEqual([ids[0], ids[0]! + 1n, ids[0]! + 2n]);
    expect(last).toEqual({ id: String(ids[2]) });
  });

  it("goes to one worker, and is there until it is done", async () => {
    const [one, two] = [await TestWorker.open(client), await TestWorker.open(client)];
    await enqueue(client, "t", ["a", "b"]);
    const [a] = await one.take({ most: 1 });
    expect(textsOf(await two.take())).toEqual(["b"]);
    expect(await one.take({ looksBehind: true })).toEqual([]);
    await one.done(a!);
    expect(textsOf([a!])).toEqual(["a"]);
    expect(await rows("SELECT worker FROM hawser_data.queue")).toEqual([{ worker: String(two.id) }]);
  });

  it("stays on its page when it is taken, and in its indexes", async () => {
    await enqueue(
      client,
      "t",
      Array.from({ length: 100 }, (_, n) => "x".repeat(50 + n)),
    );
    const page = "SELECT id, (ctid::text::point)[0] AS page FROM hawser_data.queue ORDER BY id";
    const before = await rows(page);
    expect(await (await TestWorker.open(client)).take()).toHaveLength(100);
    expect(await rows(page)).toEqual(before);
    const indexed = await rows(
      `SELECT FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
        WHERE i.indrelid = 'hawser_data.queue'::regclass AND a.attname IN ('worker', 'attempts')`,
    );
    expect(indexed).toEqual([]);
  });

  it("for a listener by name, or for a group, goes to no other", async () => {
    const named = await TestWorker.open(client, { name: "red-1", group: "red" });
    const plain = await TestWorker.open(client, { name: "plain" });
    await enqueue(client, "t", ["for red"], { recipient: "#red" });
    await enqueue(client, "t", ["for plain"], { recipient: "@plain" });
    await enqueue(client, "t", ["for red-1"], { recipient: "@red-1" });
    expect(textsOf(await plain.take())).toEqual(["for plain"]);
    expect(textsOf(await named.take())).toEqual(["for red", "for red-1"]);
  });

  it("of another topic is not taken", async () => {
    const worker = await TestWorker.open(client, { topics: ["t", "u"] });
    for (const topic of ["t", "u", "v"]) await enqueue(client, topic, [topic]);
    expect(textsOf(await worker.take())).toEqual(["t", "u"]);
  });

  it("that commits late, with a smaller number, is found by a look behind", async () => {
    const worker = await TestWorker.open(client);
    await other.query("BEGIN");
    await enqueue(other, "t", ["late"]);
    await enqueue(client, "t", ["early"]);
    expect(textsOf(await worker.take())).toEqual(["early"]);
    await other.query("COMMIT");
    expect(await worker.take()).toEqual([]);
    expect(textsOf(await worker.take({ looksBehind: true }))).toEqual(["late"]);
  });

  it("that another session is just taking is left, and nobody waits", async () => {
    const [one, two] = [await TestWorker.open(client), await TestWorker.open(other)];
    await enqueue(client, "t", ["a", "b"]);
    await other.query("BEGIN");
    expect(textsOf(await two.take({ most: 1 }))).toEqual(["a"]);
    expect(textsOf(await one.take())).toEqual(["b"]);
    await other.query("ROLLBACK");
    expect(textsOf(await one.take({ looksBehind: true }))).toEqual(["a"]);
  });
});

describe("a take", () => {
  it("finds nothing behind a message that has begun in a channel, and that the worker may not know to have", async () => {
    const worker = await TestWorker.open(client);
    await enqueue(client, "t", ["1", "2"], { key: "k" });
    const begin = "UPDATE hawser_data.queue SET worker = $1, begun_by = $1 WHERE payload = '1'";
    await client.query(begin, [worker.id]);
    expect(await worker.take()).toEqual([]);
    await client.query("DELETE FROM hawser_data.queue WHERE payload = '1'");
    await client.query("UPDATE hawser_data.queue SET behind = NULL");
    expect(await worker.take({ looksBehind: true })).toHaveLength(1);
  });

  it("has so many messages at most, and so many bytes, but one always", async () => {
    const worker = await TestWorker.open(client);
    await enqueue(client, "t", ["aaaa", "bbbb", "cccc", "dddd", "eeee"]);
    expect(textsOf(await worker.take({ most: 2 }))).toEqual(["aaaa", "bbbb"]);
    expect(textsOf(await worker.take({ maxBytes: 8 }))).toEqual(["cccc", "dddd"]);
    expect(textsOf(await worker.take({ maxBytes: 1 }))).toEqual(["eeee"]);
  });

  it("gives each role an equal part, whoever has enqueued more and earlier", async () => {
    const worker = await TestWorker.open(client);
    await enqueue(
      client,
      "t",
      Array.from({ length: 500 }, (_, n) => `flood ${n}`),
      { role: "flood" },
    );
    await enqueue(client, "t", ["b", "c"], { role: "shop" });
    const first = textsOf(await worker.take({ most: 10 }));
    expect(first.slice(-2)).toEqual(["b", "c"]);
    expect(first).toHaveLength(10);
    await enqueue(client, "t", ["d"], { role: "a role before" });
    expect(textsOf(await worker.take({ most: 10 }))).toContain("d");
  });

  it("gives each topic an equal part", async () => {
    const worker = await TestWorker.open(client, { topics: ["t", "u"] });
    await enqueue(
      client,
      "t",
      Array.from({ length: 500 }, (_, n) => `${n}`),
    );
    await enqueue(client, "u", ["a"]);
    expect(textsOf(await worker.take({ most: 10 }))).toContain("a");
  });

  it("says how far it has looked, where it could not take what is there", async () => {
    const [one, two] = [await TestWorker.open(client), await TestWorker.open(client)];
    await enqueue(client, "t", ["a"], { key: "k" });
    await one.take();
    await enqueue(client, "t", ["b", "c"], { key: "k" });
    await enqueue(client, "t", ["d"]);
    expect(await two.take({ most: 2 })).toEqual([]);
    expect(textsOf(await two.take({ most: 2 }))).toEqual(["d"]);
  });

  it("takes no advisory lock, which another login could have", async () => {
    const worker = await TestWorker.open(client);
    await enqueue(client, "t", ["a"], { key: "k" });
    await client.query("BEGIN");
    expect(await worker.take()).toHaveLength(1);
    const held = await rows("SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'");
    await client.query("COMMIT");
    expect(held).toEqual([]);
  });

  it("reads about as many rows as it takes, however many wait or are put off, with statistics from when there were none", async () => {
    const one = await connected();
    const plans: string[] = [];
    one.on("notice", ({ message }) => void plans.push(message ?? ""));
    await one.query("ANALYZE hawser_data.queue");
    for (const dueAt of ["NULL", "now() + interval '1 day'"])
      await one.query(
        `INSERT INTO hawser_data.queue (topic, role, rank, id, key, payload, due_at)
         SELECT 't', 'shop', n, n, CASE WHEN n % 2 = 0 THEN 'k' || n % 20 END, 'x', ${dueAt}
           FROM (SELECT nextval('hawser_data.outbox_id_seq') AS n FROM generate_series(1, 20000)) AS s`,
      );
    const worker = await TestWorker.open(one);
    await one.query(
      `LOAD 'auto_explain'; SET auto_explain.log_level = notice; SET auto_explain.log_min_duration = 0;
       SET auto_explain.log_nested_statements = on; SET auto_explain.log_analyze = on`,
    );
    for (const most of [10, 10]) expect(await worker.take({ most })).toHaveLength(most);
    await one.end();
    const scans = plans.join("\n").match(/^.*(?:Scan).* on queue .*actual.*$/gm) ?? [];
    expect(scans.length).toBeGreaterThan(4);
    expect(scans.filter((scan) => scan.includes("Seq Scan"))).toEqual([]);
    for (const scan of scans) {
      const [, read, loops] = /rows=([\d.]+) loops=(\d+)\)/.exec(scan)!;
      expect(Number(read) * Number(loops), scan).toBeLessThanOrEqual(25);
    }
    expect(plans.join("\n")).not.toMatch(/Rows Removed by Filter: \d{3,}/);
  });

  it("finds the messages that it has passed by their ids, with statistics from when the table had pages and no rows", async () => {
    const one = await connected();
    const plans: string[] = [];
    const fill = `INSERT INTO hawser_data.queue (topic, role, rank, id, key, payload)
       SELECT 't', 'shop', n + 1000, n, 'k' || n % 20, 'x' FROM generate_series(1, 20000) AS n`;
    await one.query(`${fill}; DELETE FROM hawser_data.queue; ANALYZE hawser_data.queue; ${fill}`);
    one.on("notice", ({ message }) => void plans.push(message ?? ""));
    await one.query(
      `LOAD 'auto_explain'; SET auto_explain.log_level = notice; SET auto_explain.log_min_duration = 0;
       SET auto_explain.log_nested_statements = on; SET auto_explain.log_analyze = on`,
    );
    await one.query("SELECT hawser.put_behind(array_agg(n)) FROM generate_series(50, 60) AS n");
    await one.end();
    expect(plans.join("\n")).toContain("WITH keys");
    expect(plans.join("\n")).not.toMatch(/Rows Removed by Filter: \d{4,}/);
  });

  it("refuses a snapshot from before it waited", async () => {
    const worker = await TestWorker.open(client);
    await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
    await expect(worker.take()).rejects.toMatchObject({ code: "25000" });
    await client.query("ROLLBACK");
  });
});

describe("a key", () => {
  it("is one worker's at a time, which gets what comes", async () => {
    const [one, two] = [await TestWorker.open(client), await TestWorker.open(client)];
    await enqueue(client, "t", ["a", "b"], { key: "k" });
    await enqueue(client, "t", ["c"], { key: "l" });
    const [a] = await one.take({ most: 1 });
    expect(textsOf(await one.take({ most: 1 }))).toEqual(["b"]);
    expect(textsOf(await two.take())).toEqual(["c"]);
    await enqueue(client, "t", ["d"], { key: "k" });
    expect(textsOf(await one.take())).toEqual(["d"]);
    await one.done(a!);
    expect(await two.take({ looksBehind: true })).toEqual([]);
  });

  it("is looked at again by nobody before its first message has ended, and then by everybody, some of it at a time", async () => {
    const [one, two] = [await TestWorker.open(client), await TestWorker.open(client)];
    const many = Array.from({ length: 200 }, (_, number) => `${number}`);
    await enqueue(client, "t", many, { key: "k" });
    await enqueue(client, "t", ["x"]);
    const [first] = await one.take({ most: 1 });
    const behind = async () =>
      (await rows<{ n: number }>("SELECT count(*)::int AS n FROM hawser_data.queue WHERE behind IS NOT NULL"))[0]!.n;
    for (let takes = 0; (await behind()) < 199 && takes < 30; takes += 1) await two.take();
    expect(await behind()).toBe(199);
    await one.done(first!);
    expect(await behind()).toBe(199 - 64);
    const ofKey = (await two.take({ looksBehind: true, most: 100 })).filter(({ key }) => key === "k");
    expect(textsOf(ofKey)).toEqual(many.slice(1, 65));
  });

  it("goes on, if who ended its first message saw an older state of it, with the beat of a worker", async () => {
    const [one, two] = [await TestWorker.open(client), await TestWorker.open(other)];
    await enqueue(client, "t", ["a", "b"], { key: "k" });
    const [a] = await one.take({ most: 1 });
    await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
    await client.query("SELECT FROM hawser_data.queue");
    await two.take();
    await one.done(a!);
    await client.query("COMMIT");
    expect(await two.take({ looksBehind: true })).toEqual([]);
    await eventually("a beat finds it", async () => {
      await two.extend();
      return (await rows("SELECT FROM hawser_data.queue WHERE behind IS NULL")).length === 1;
    });
    expect(textsOf(await two.take({ looksBehind: true }))).toEqual(["b"]);
  });

  it("goes to another worker when all of its messages are done", async () => {
    const [one, two] = [await TestWorker.open(client), await TestWorker.open(client)];
    await enqueue(client, "t", ["a"], { key: "k" });
    await one.doneBatch(...(await one.take()));
    await enqueue(client, "t", ["b"], { key: "k" });
    expect(textsOf(await two.take())).toEqual(["b"]);
  });

  it("of another role is another one", async () => {
    const [one, two] = [await TestWorker.open(client), await TestWorker.open(client)];
    await enqueue(client, "t", ["a"], { key: "k", role: "x" });
    await one.take();
    await enqueue(client, "t", ["b"], { key: "k", role: "y" });
    expect(textsOf(await two.take())).toEqual(["b"]);
  });

  it("of another topic or recipient is another one", async () => {
    const [one, two] = [
      await TestWorker.open(client, { group: "g" }),
      await TestWorker.open(client, { topics: ["t", "u"] }),
    ];
    await enqueue(client, "t", ["a"], { key: "k", recipient: "#g" });
    await one.take();
    await enqueue(client, "t", ["b"], { key: "k" });
    await enqueue(client, "u", ["c"], { key: "k" });
    expect(textsOf(await two.take())).toEqual(["b", "c"]);
  });

  it("that another session is just taking is left, and nobody waits", async () => {
    const [one, two] = [await TestWorker.open(client), await TestWorker.open(other)];
    await enqueue(client, "t", ["a", "b"], { key: "k" });
    await client.query("BEGIN");
    expect(textsOf(await one.take({ most: 1 }))).toEqual(["a"]);
    await enqueue(other, "t", ["c"]);
    await enqueue(other, "t", ["d"], { key: "k" });
    expect(textsOf(await two.take())).toEqual(["c"]);
    await client.query("COMMIT");
    expect(await two.take({ looksBehind: true })).toEqual([]);
  });

  it("whose first message waits to be tried again keeps the others waiting, those that the worker has, too", async () => {
    const [one, two] = [await TestWorker.open(client), await TestWorker.open(client)];
    const ids = await enqueue(client, "t", ["a", "b"], { key: "k" });
    const [a] = await one.take();
    await enqueue(client, "t", ["c"], { key: "k" });
    expect(await one.retry(a!, 60_000)).toEqual(ids);
    for (const worker of [one, two]) expect(await worker.take({ looksBehind: true })).toEqual([]);
    await pass();
    // Whatever a worker has looked at.
    const [again] = await two.take();
    expect(textsOf([again!])).toEqual(["a"]);
    expect(await one.take({ looksBehind: true })).toEqual([]);
    await two.done(again!);
    expect(textsOf(await two.take({ looksBehind: true }))).toEqual(["b", "c"]);
  });

  it("whose first message waits because its handler wants it later has as many attempts as before", async () => {
    const worker = await TestWorker.open(client);
    const [id] = await enqueue(client, "t", ["a"]);
    const [a] = await worker.take();
    await worker.retry(a!, 0, null, false);
    const [again] = await worker.take();
    expect(again).toMatchObject({ id, attempts: 0 });
    const failure = { attempt: 1, at: new Date(0), code: "handler_failed", message: "no" };
    await worker.retry(again!, 0, failure, true);
    const [third] = await worker.take();
    expect(third).toMatchObject({ id, attempts: 1 });
    // A worker that does not say counts one.
    await client.query("SELECT hawser.retry($1, 't', '', 'shop', $2, 0)", [String(worker.id), String(id)]);
    expect(await worker.take()).toMatchObject([{ id, attempts: 2 }]);
    expect(await rows("SELECT jsonb_array_length(failures) AS n FROM hawser_data.queue")).toEqual([{ n: 1 }]);
  });

  it("whose first message is put off has none behind it that is due before, also if others were put off earlier", async () => {
    const first = await TestWorker.open(client, { name: "v" });
    await enqueue(client, "t", ["1", "2", "3", "4", "5", "6"], { key: "k" });
    const [all] = await first.take();
    await first.retry(all!, 0);
    const worker = await TestWorker.open(client);
    const [again] = await worker.take({ most: 2 });
    await worker.retry(again!, 0);
    expect(textsOf(await worker.take({ most: 2 }))).toEqual(["1"]);
    await first.close();
  });

  it("that another worker has hides nothing that is due behind its messages", async () => {
    const [first, one, two] = [
      await TestWorker.open(client, { name: "v" }),
      await TestWorker.open(client),
      await TestWorker.open(client),
    ];
    await enqueue(client, "t", ["1", "2", "3", "4", "5", "6"], { key: "k" });
    await first.retry((await first.take())[0]!, 0);
    expect(textsOf(await one.take({ most: 2 }))).toEqual(["1"]);
    await enqueue(client, "t", ["x"]);
    await two.retry((await two.take())[0]!, 0);
    expect(textsOf(await two.take({ most: 2 }))).toEqual(["x"]);
  });

  it("is freed from its end: what is given back takes with it what is behind it", async () => {
    const [one, two] = [await TestWorker.open(client), await TestWorker.open(client)];
    const ids = await enqueue(client, "t", ["a", "b", "c"], { key: "k" });
    const [a, b] = await one.take();
    expect(await one.giveBack(b!)).toEqual(ids.slice(1));
    expect(await two.take()).toEqual([]);
    await one.done(a!);
    expect(textsOf(await two.take({ looksBehind: true }))).toEqual(["b", "c"]);
  });
});

describe("the end of a message", () => {
  it("fails if it is not there, with all that its transaction did", async () => {
    const worker = await TestWorker.open(client);
    const [id] = await enqueue(client, "t", ["a"]);
    await worker.take();
    await client.query("CREATE TEMPORARY TABLE effects (text text)");
    const handled = `BEGIN; INSERT INTO effects VALUES ('a'); SELECT hawser.done('t', '', 'shop', ${id}, false); COMMIT`;
    await client.query(handled);
    await expect(client.query(handled)).rejects.toMatchObject(gone);
    await client.query("ROLLBACK");
    expect(await rows("SELECT text FROM effects")).toEqual([{ text: "a" }]);
  });

  it("of several ends all or none", async () => {
    const worker = await TestWorker.open(client);
    await enqueue(client, "t", ["a", "b", "c"]);
    const [a, b, c] = await worker.take();
    await worker.doneBatch(a!, b!);
    await expect(worker.doneBatch(b!, c!)).rejects.toMatchObject({
      ...gone,
      message: expect.stringContaining("1 of 2"),
    });
    expect(await rows("SELECT id FROM hawser_data.queue")).toEqual([{ id: String(c!.id) }]);
  });

  it("does not ask who has it, so that a worker which was thought gone commits if nobody else did", async () => {
    const [one, two] = [await TestWorker.open(client), await TestWorker.open(client)];
    await enqueue(client, "t", ["a"]);
    const [a] = await one.take();
    await silence(one);
    await two.extend();
    const [again] = await two.take();
    await one.done(a!);
    await expect(two.done(again!)).rejects.toMatchObject(gone);
    await expect(one.retry(a!, 0)).rejects.toMatchObject(gone);
  });

  it("fails in a transaction that is not the handler's, if that is asked", async () => {
    const worker = await TestWorker.open(client);
    const [id] = await enqueue(client, "t", ["a"]);
    await worker.take();
    const done = `SELECT hawser.done('t', '', 'shop', ${id}, true)`;
    await expect(client.query(done)).rejects.toMatchObject({ code: "23000", constraint: "ended" });
    await client.query(`BEGIN; SET LOCAL hawser.handling = 'on'; ${done}; COMMIT`);
    expect(await rows("SELECT FROM hawser_data.queue")).toEqual([]);
  });

  it("is on disk with its commit, whatever the default of the database", async () => {
    const worker = await TestWorker.open(client);
    await enqueue(client, "t", ["a"]);
    const [a] = await worker.take();
    await client.query("BEGIN; SET LOCAL synchronous_commit = off");
    await worker.done(a!);
    expect(await rows("SELECT current_setting('synchronous_commit') AS set")).toEqual([{ set: "on" }]);
    await client.query("COMMIT");
  });
});

describe("a failed message", () => {
  it("is tried again when it is due, by whoever has room", async () => {
    const [one, two] = [await TestWorker.open(client), await TestWorker.open(client)];
    await enqueue(client, "t", ["a", "b"]);
    const [a] = await one.take({ most: 1 });
    await two.take();
    expect(await one.retry(a!, 60_000)).toEqual([a!.id]);
    expect(await two.take({ looksBehind: true })).toEqual([]);
    await pass();
    expect(await two.take()).toMatchObject([{ id: a!.id, attempts: 1, isSuspect: false }]);
    await expect(one.retry(a!, 0)).rejects.toMatchObject(gone);
    await expect(one.giveUp(a!)).rejects.toMatchObject(gone);
  });

  it("keeps its last 16 failures, and is a dead letter of the role that enqueued it when it is given up", async () => {
    const worker = await TestWorker.open(client);
    await enqueue(client, "t", ["a"], { key: "k", origin: "shop-1:shop", headers: [["x", "y"]] });
    const failure = (attempt: number) => ({
      attempt,
      at: "2026-11-27T00:00:00Z",
      code: "handler_failed",
      message: "no",
    });
    for (let attempt = 1; attempt <= 20; attempt++) {
      const [message] = await worker.take();
      expect(message!.attempts).toBe(attempt - 1);
      if (attempt === 20) await worker.giveUp(message!, failure(20));
      else await worker.retry(message!, 0, failure(attempt));
    }
    expect(await rows("SELECT FROM hawser_data.queue")).toEqual([]);
    const [letter] = await rows("SELECT * FROM hawser_data.dead_letters");
    const headers = [
      ["message-origin", "shop-1:shop:shop"],
      ["message-key", "k"],
      ["x", "y"],
    ];
    expect(letter).toMatchObject({
      ...{ origin: "queue", source: "", topic: "t", payload: Buffer.from("a"), headers, attempts: 20, role: "shop" },
      ...{ error_code: "handler_failed", error_message: "no", stack: "at a", channel_id: null },
      failures: Array.from({ length: 16 }, (_, n) => failure(n + 5)),
    });
  });

  it("that was given up without another attempt counts none, and comes back with the same headers when it is retried", async () => {
    const worker = await TestWorker.open(client, { name: "plain" });
    await enqueue(client, "t", ["a"], { recipient: "@plain", key: "k", origin: "shop-1:shop", headers: [["x", "y"]] });
    await enqueue(client, "t", ["b"], { recipient: "@plain" });
    const messages = await worker.take();
    for (const message of messages) await worker.giveUp(message);
    const letters = await rows("SELECT id, attempts FROM hawser_data.dead_letters ORDER BY id");
    expect(letters).toMatchObject([{ attempts: 0 }, { attempts: 0 }]);
    const ids = letters.map(({ id }) => id);
    expect(await rows("SELECT id, enqueued FROM hawser.retry_dead_letters($1)", ids)).toEqual(
      ids.map((id) => ({ id, enqueued: true })),
    );
    const again = await worker.take();
    const kept = ({ id, headers, origin }: Taken) => ({ id, headers, origin });
    expect(again.map(kept)).toEqual(messages.map(kept));
    expect(textsOf(again)).toEqual(["a", "b"]);
  });
});

describe("a worker", () => {
  it("has an id that nobody can guess, and no number of a sequence", async () => {
    const ids: bigint[] = [];
    for (let nth = 0; nth < 20; nth++) ids.push((await TestWorker.open(client)).id);
    for (const id of ids) expect(id).toBeLessThan(2n ** 53n);
    expect(Math.max(...ids.map(Number)) - Math.min(...ids.map(Number))).toBeGreaterThan(2 ** 40);
  });

  it("that ends leaves its messages free and untried", async () => {
    const [one, two] = [await TestWorker.open(client), await TestWorker.open(client)];
    await enqueue(client, "t", ["a", "b"], { key: "k" });
    await one.take();
    expect([await one.close(), await one.close()]).toEqual([true, false]);
    expect(await two.take()).toMatchObject([
      { attempts: 0, isSuspect: false },
      { attempts: 0, isSuspect: false },
    ]);
    await expect(one.take()).rejects.toMatchObject(lost);
    await expect(one.extend()).rejects.toMatchObject(lost);
  });

  it("replaces its earlier one, whose messages are free and untried", async () => {
    const one = await TestWorker.open(client);
    await enqueue(client, "t", ["a"], { key: "k" });
    await one.take();
    const again = await TestWorker.open(client, { replaces: one.id });
    await expect(one.take()).rejects.toMatchObject(lost);
    expect(await again.take()).toMatchObject([{ attempts: 0, isSuspect: false }]);
  });

  it("whose session has ended goes on with what it names, under another id; all else is free and untried", async () => {
    await client.query("SELECT hawser.limit_topic('l', running => 1)");
    const worker = await TestWorker.open(client, { topics: ["t", "l"] });
    const another = await TestWorker.open(client, { name: "another", topics: ["t", "l"] });
    await enqueue(client, "t", ["k1", "k2"], { key: "k" });
    await enqueue(client, "t", ["a", "b", "c"]);
    await enqueue(client, "l", ["limited", "other"]);
    const had = await worker.take();
    const takeLimited = (one: TestWorker) => one.take({ topics: ["l"] });
    const [limited] = await takeLimited(worker);
    expect(textsOf(had)).toEqual(["k1", "k2", "a", "b", "c"]);
    const [k1, , a, b] = had;
    await worker.done(b!);
    const before = worker.id;
    const kept = [k1!.id, a!.id, limited!.id];
    expect(await worker.resume([k1!, a!, b!, limited!], 17n)).toEqual(kept);
    // Its answer was lost.
    expect(await worker.resume([k1!, a!, b!, limited!], 17n)).toEqual(kept);
    await expect(client.query("SELECT hawser.extend($1, false)", [String(before)])).rejects.toMatchObject(lost);
    // Neither the key nor the place under the limit is another's.
    const free = await another.take({ looksBehind: true });
    expect(free.map(({ attempts, isSuspect }) => ({ attempts, isSuspect }))).toEqual([
      { attempts: 0, isSuspect: false },
    ]);
    expect(textsOf(free)).toEqual(["c"]);
    expect(await takeLimited(another)).toEqual([]);
    expect(textsOf(await worker.take({ looksBehind: true }))).toEqual(["k2"]);
    await worker.retry(a!, 0);
    await silence(worker);
    await another.extend();
    await expect(worker.resume([k1!])).rejects.toMatchObject(lost);
    await client.query("SELECT hawser.limit_topic('l')");
  });

  it("gives back what it has not begun", async () => {
    const [one, two] = [await TestWorker.open(client), await TestWorker.open(client)];
    const ids = await enqueue(client, "t", ["a", "b", "c"]);
    const [a, b] = await one.take();
    expect(await one.giveBack(a!, b!)).toEqual(ids.slice(0, 2));
    expect(await one.giveBack(a!)).toEqual([]);
    expect(await two.take()).toMatchObject([{ attempts: 0 }, { attempts: 0 }]);
  });

  it("stands in for a listener that is away, whose keys stay in order when it is back", async () => {
    const standIn = await TestWorker.open(client, { name: "heir" });
    for (const text of ["1", "2"]) await enqueue(client, "t", [text], { recipient: "@away", key: "k" });
    expect(await standIn.take()).toEqual([]);
    await standIn.standInFor("away", "never");
    const had = await standIn.take();
    expect(textsOf(had)).toEqual(["1", "2"]);
    expect(had.map(({ recipient }) => recipient)).toEqual(["@away", "@away"]);
    const back = await TestWorker.open(client, { name: "away" });
    await enqueue(client, "t", ["3"], { recipient: "@away", key: "k" });
    await enqueue(client, "t", ["4"], { recipient: "@away" });
    expect(textsOf(await back.take())).toEqual(["4"]);
    await standIn.standInFor();
    await standIn.doneBatch(...had);
    expect(textsOf(await standIn.take({ looksBehind: true }))).toEqual([]);
    expect(textsOf(await back.take({ looksBehind: true }))).toEqual(["3"]);
  });

  it("is ended by another one when it was silent for longer than its lease, and not before", async () => {
    const [one, two, three] = [
      await TestWorker.open(client, { leaseMs: 5_000 }),
      await TestWorker.open(client),
      await TestWorker.open(client),
    ];
    expect(await two.extend()).toEqual([]);
    await silence(one);
    expect(await two.extend()).toEqual([one.id]);
    expect(await three.extend()).toEqual([]);
    await expect(one.extend()).rejects.toMatchObject(lost);
    await expect(one.take()).rejects.toMatchObject({ ...lost, hint: expect.stringContaining("open_worker") });
  });

  it("that is gone is forgotten after a day", async () => {
    const [one, two] = [await TestWorker.open(client), await TestWorker.open(client)];
    await silence(one);
    await two.extend();
    await client.query("UPDATE hawser_data.workers SET gone_at = gone_at - interval '2 days'");
    await two.extend();
    expect(await rows("SELECT id FROM hawser_data.workers")).toEqual([{ id: String(two.id) }]);
  });

  it("that is gone leaves suspects, of which those count as tried that may have been running: its first ones, and of a key the first", async () => {
    const [one, two] = [await TestWorker.open(client, { concurrency: 3 }), await TestWorker.open(client)];
    await enqueue(client, "t", ["a", "b"], { key: "k" });
    await enqueue(client, "t", ["c", "d", "e", "f"]);
    await one.take();
    await silence(one);
    await two.extend();
    const first = await two.take({ most: 3 });
    const rest = await two.take({ looksBehind: true });
    const seen = [...first, ...rest].map(({ payload, attempts, isSuspect }) => [
      payload.toString(),
      attempts,
      isSuspect,
    ]);
    expect(seen).toEqual([
      ["a", 1, true],
      ["b", 0, true],
      ["c", 1, true],
      ["d", 1, true],
      ["e", 0, true],
      ["f", 0, true],
    ]);
  });

  it("that is gone counts a start of a suspect only if it was told, and no end but its own takes that back", async () => {
    const texts = ["begun", "read ahead", "given back", "put off", "another's"];
    await enqueue(client, "t", texts);
    let taken: Taken[] = [];
    for (let life = 0; life < 3; life++) {
      const worker = await TestWorker.open(client, { concurrency: 5 });
      taken = await worker.take();
      const [begun, , given, off] = taken;
      expect(await worker.begin(begun!, given!, off!)).toEqual([begun!.id, given!.id, off!.id]);
      await worker.giveBack(given!);
      await worker.retry(off!, 0, null, false);
      // It has them once more, and has not begun them again.
      expect(textsOf(await worker.take({ looksBehind: true }))).toEqual(["given back", "put off"]);
      const other = await TestWorker.open(client);
      expect(await other.begin(taken.at(-1)!)).toEqual([]);
      await silence(worker);
      await other.extend();
      await other.close();
    }
    taken = await (await TestWorker.open(client)).take();
    const seen = taken.map(({ payload, attempts, isSuspect, wasRunning }) => [
      ...[payload.toString(), attempts, isSuspect, wasRunning],
    ]);
    // Of the first life nothing is known: each may have been running.
    expect(seen).toEqual([
      ["begun", 3, true, true],
      ["read ahead", 1, true, false],
      ["given back", 1, true, false],
      ["put off", 1, true, false],
      ["another's", 1, true, false],
    ]);
  });

  it("that is gone counts a start that was told before its session ended, and that ran on", async () => {
    await enqueue(client, "t", ["told", "not told"]);
    const worker = await TestWorker.open(client, { concurrency: 1 });
    const [told, not] = await worker.take();
    await worker.begin(told!);
    // The answer to the first one was lost.
    for (let nth = 0; nth < 2; nth++) expect(await worker.resume([told!, not!], 17n)).toEqual([told!.id, not!.id]);
    await silence(worker);
    const heir = await TestWorker.open(client);
    await heir.extend();
    expect(await heir.take()).toMatchObject([{ wasRunning: true }, { wasRunning: false }]);
  });

  it("that is gone counts a start that was told at its first end, too, beside those that may have been running", async () => {
    await enqueue(client, "t", ["a", "b", "c"]);
    const worker = await TestWorker.open(client, { concurrency: 1 });
    const [, , c] = await worker.take();
    await worker.begin(c!);
    await silence(worker);
    const heir = await TestWorker.open(client);
    await heir.extend();
    const seen = (await heir.take()).map(({ payload, attempts, wasRunning }) => [`${payload}`, attempts, wasRunning]);
    expect(seen).toEqual([
      ["a", 1, false],
      ["b", 0, false],
      ["c", 1, true],
    ]);
  });

  it("that is gone has tried so many in each place, however they are taken", async () => {
    const one = await TestWorker.open(client, { concurrency: 2, topics: ["t", "u"] });
    const two = await TestWorker.open(client, { topics: ["t", "u"] });
    for (const topic of ["t", "u"]) await enqueue(client, topic, ["a", "b", "c"]);
    await one.take();
    await silence(one);
    await two.extend();
    const taken = [];
    for (let nth = 0; nth < 6; nth++) taken.push(...(await two.take({ most: 1, looksBehind: true })));
    const tried = taken.filter(({ attempts }) => attempts > 0).map(({ topic, payload }) => `${topic} ${payload}`);
    expect(tried.sort()).toEqual(["t a", "t b", "u a", "u b"]);
  });
});

describe("a message for all", () => {
  const recipients = async () =>
    (await rows('SELECT recipient FROM hawser_data.queue ORDER BY recipient COLLATE "C"')).map(
      (row) => row["recipient"],
    );

  async function list(name: string, { durable = false, group }: { durable?: boolean; group?: string } = {}) {
    await client.query("INSERT INTO hawser_peer_data.peers (name, epoch, group_name) VALUES ($1, 1, $2)", [
      name,
      group ?? null,
    ]);
    await client.query(
      "INSERT INTO hawser_peer_data.listeners (topic, addr, listener_name, durable) VALUES ('t', $1, $1, $2)",
      [name, durable],
    );
  }

  it("becomes one for each worker outside of groups and each group, of those that go on and serve the topic", async () => {
    const taker = await TestWorker.open(client, { name: "a" });
    for (const name of ["red-1", "red-2"]) await TestWorker.open(client, { name, group: "red" });
    await TestWorker.open(client, { name: "b", topics: ["u", "t"] });
    await TestWorker.open(client, { name: "elsewhere", topics: ["u"] });
    const away = await TestWorker.open(client, { name: "away" });
    await silence(away);
    await taker.extend();
    const options = { toAll: true, key: "k", headers: [["x", "y"]] as const, origin: "shop-1:shop" };
    const [id] = await enqueue(client, "t", ["m"], options);
    const before = await rows("SELECT enqueued_at FROM hawser_data.queue");
    expect(await taker.take()).toEqual([]);
    expect(await recipients()).toEqual(["#red", "@a", "@b"]);
    const [message] = await taker.take();
    expect(message).toMatchObject({
      recipient: "@a",
      key: "k",
      role: "shop",
      origin: "shop-1:shop",
      headers: [{}, {}, ["x", "y"]],
    });
    expect(message!.id).toBeGreaterThan(id!);
    expect(message!.enqueuedAt).toEqual(before[0]!["enqueued_at"]);
  });

  it("becomes one for each group of the directory, and each listener outside of one that is durable or runs", async () => {
    await list("durable", { durable: true });
    await list("running");
    await list("stopped");
    await list("member", { group: "blue" });
    const taker = await TestWorker.open(client, { name: "red-1", group: "red" });
    await other.query("SELECT FROM hawser.own_name('running', 'x', 17)");
    await enqueue(client, "t", ["m"], { toAll: true });
    await taker.take();
    expect(await recipients()).toEqual(["#blue", "#red", "@durable", "@running"]);
    await other.query("SELECT FROM hawser.release_name('running', true)");
  });

  it("is copied with so many others that one transaction does not make more copies than a page has", async () => {
    const taker = await TestWorker.open(client, { name: "a" });
    await client.query(
      `INSERT INTO hawser_peer_data.listeners (topic, addr, listener_name, durable)
       SELECT 't', 'l' || n, 'l' || n, true FROM generate_series(1, 999) AS n`,
    );
    await enqueue(client, "t", ["1", "2", "3", "4"], { toAll: true, key: "k" });
    await enqueue(client, "t", ["5"], { key: "k" });
    expect(await taker.take()).toEqual([]);
    expect(await rows("SELECT count(*)::int AS left FROM hawser_data.queue WHERE recipient = ''")).toEqual([
      { left: 3 },
    ]);
    const taken: string[] = [];
    for (let takes = 0; takes < 4; takes += 1) taken.push(...textsOf(await taker.take({ looksBehind: true })));
    expect(taken.toSorted()).toEqual(["1", "2", "3", "4", "5"]);
    expect(taken.filter((text) => text !== "5")).toEqual(["1", "2", "3", "4"]);
  });

  it("goes to the taker alone if there is nobody else, with the order of its key", async () => {
    const taker = await TestWorker.open(client);
    await enqueue(client, "t", ["a", "b", "c"], { toAll: true, key: "k" });
    await enqueue(client, "t", ["d"]);
    expect(textsOf(await taker.take())).toEqual(["d"]);
    expect(textsOf(await taker.take())).toEqual(["a", "b", "c"]);
  });
});

describe("a message with a priority", () => {
  const ofPriority = (priority: number, ...texts: string[]) => enqueue(client, "t", texts, { priority });

  it("is taken before those with a lower one, and behind older ones with the same", async () => {
    const worker = await TestWorker.open(client);
    await ofPriority(-32768, "least");
    await ofPriority(-1, "low 1", "low 2");
    await ofPriority(0, "none");
    await ofPriority(1, "high 1");
    await ofPriority(32767, "greatest");
    await ofPriority(1, "high 2");
    expect(textsOf(await worker.take({ most: 4 }))).toEqual(["greatest", "high 1", "high 2", "none"]);
    expect(textsOf(await worker.take())).toEqual(["low 1", "low 2", "least"]);
  });

  it("is found before and among those that a worker has looked at", async () => {
    const worker = await TestWorker.open(client);
    await ofPriority(5, "a");
    await ofPriority(0, "b");
    expect(textsOf(await worker.take({ most: 2 }))).toEqual(["a", "b"]);
    await ofPriority(0, "c");
    await ofPriority(4, "d");
    await ofPriority(6, "e");
    expect(textsOf(await worker.take())).toEqual(["e", "d", "c"]);
  });

  it("has the part of its role, and no other role's", async () => {
    const worker = await TestWorker.open(client);
    const texts = (name: string) => Array.from({ length: 20 }, (_, n) => `${name} ${n}`);
    await enqueue(client, "t", texts("greedy"), { role: "greedy", priority: 32767 });
    await enqueue(client, "t", texts("more"), { role: "greedy", priority: 1000 });
    await enqueue(client, "t", texts("plain"), { role: "plain" });
    const taken = textsOf(await worker.take({ most: 10 }));
    expect(taken.filter((text) => text.startsWith("greedy"))).toHaveLength(5);
    expect(taken.filter((text) => text.startsWith("plain"))).toHaveLength(5);
  });

  it("keeps it when it is tried again, is a dead letter, and comes back from there", async () => {
    const worker = await TestWorker.open(client);
    await ofPriority(-3, "low");
    await ofPriority(3, "high");
    for (const message of await worker.take()) await worker.retry(message, 1);
    await pass();
    const again = await worker.take();
    expect(textsOf(again)).toEqual(["high", "low"]);
    for (const message of again) await worker.giveUp(message);
    await client.query(
      "SELECT hawser.retry_dead_letters(array_agg(id ORDER BY id DESC)) FROM hawser_data.dead_letters",
    );
    await ofPriority(0, "none");
    expect(textsOf(await worker.take())).toEqual(["high", "none", "low"]);
  });

  it("is that of a dead letter with a number; one that was refused before it had a number comes back without", async () => {
    await client.query(
      `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, headers, error_code, error_message, attempts, role)
       VALUES ('queue', '', 't', 'x', '[]', 'not_permitted', 'no', 0, 'postgres')`,
    );
    await client.query("SELECT hawser.retry_dead_letters(array_agg(id)) FROM hawser_data.dead_letters");
    const worker = await TestWorker.open(client);
    expect(await worker.take()).toMatchObject([{ recipient: "", payload: Buffer.from("x") }]);
  });

  it("is given to each listener and group in the order of the priorities, if it is for all", async () => {
    const worker = await TestWorker.open(client, { name: "a" });
    await enqueue(client, "t", ["low"], { toAll: true, priority: -1 });
    await enqueue(client, "t", ["none"], { toAll: true });
    await enqueue(client, "t", ["high"], { toAll: true, priority: 1 });
    await worker.take();
    expect(textsOf(await worker.take({ looksBehind: true }))).toEqual(["high", "none", "low"]);
  });

  it("moves with the others of a listener, and is found by its number", async () => {
    const [id] = await enqueue(client, "t", ["x"], { recipient: "@a", priority: 7 });
    await client.query("SELECT hawser.reassign_queued('a', 'b', 10)");
    expect(await rows("SELECT listener, priority FROM hawser.queue_find($1, NULL, 10)", String(id))).toEqual([
      { listener: "b", priority: 7 },
    ]);
    const worker = await TestWorker.open(client, { name: "b" });
    const [message] = await worker.take();
    expect(message?.id).toBe(id);
    await worker.done(message!);
    expect(await rows("SELECT FROM hawser_data.queue")).toEqual([]);
  });

  it("is found with few pages read, however many with a higher one are put off", async () => {
    const one = await connected();
    await one.query("ANALYZE hawser_data.queue");
    await one.query(
      `INSERT INTO hawser_data.queue (topic, recipient, role, rank, id, payload, due_at)
       SELECT 't', '!', 'shop', n - (5::bigint << 46), n, 'x', now() + interval '1 day'
         FROM generate_series(1000000, 1020000) AS n`,
    );
    const worker = await TestWorker.open(one);
    /** Pages that a call of this session reads. */
    const pages = async (call: string): Promise<number> => {
      const { rows } = await one.query(`EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM ${call}`);
      const { Plan: plan } = rows[0]["QUERY PLAN"][0];
      return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"];
    };
    const take = `hawser.take(${worker.id}, 50, 1000000, NULL, '{}')`;
    const extend = `hawser.extend(${worker.id}, true)`;
    // The first calls of a session read the catalog.
    for (const call of [take, extend, take, extend]) await pages(call);
    expect(await pages(take)).toBeLessThan(200);
    expect(await pages(extend)).toBeLessThan(200);
    expect((await one.query(`SELECT has_messages AS has FROM ${extend}`)).rows).toEqual([{ has: false }]);
    await ofPriority(4, "lower");
    expect((await one.query(`SELECT has_messages AS has FROM ${extend}`)).rows).toEqual([{ has: true }]);
    expect(textsOf(await worker.take())).toEqual(["lower"]);
    await one.end();
  });

  it("does not let the numbers run out after a failover", async () => {
    await ofPriority(-32768, "least");
    await ofPriority(32767, "greatest");
    await ofPriority(3, "last");
    const [before] = await rows<{ last: string }>("SELECT last_value AS last FROM hawser_data.outbox_id_seq");
    await client.query("SELECT setval('hawser_data.outbox_id_seq', 1)");
    expect(await rows("SELECT * FROM hawser.behind_sequences(true)")).toMatchObject([
      { sequence_name: "hawser_data.outbox_id_seq", highest: before!.last },
    ]);
  });
});

describe("a worker that waits", () => {
  let listener: pg.Client;
  let heard: string[];

  beforeEach(async () => {
    listener = await connected();
    heard = [];
    listener.on(
      "notification",
      ({ payload = "" }) => payload.startsWith(queueConstants.leaseMark) || heard.push(payload),
    );
    await listener.query("LISTEN hawser_queue");
    return () => listener.end();
  });

  const wait = async (...topics: readonly string[]) =>
    (await listener.query("SELECT waits, horizon FROM hawser.wait_for($1)", [topics])).rows[0];
  const stop = async (...topics: readonly string[]) =>
    (await listener.query("SELECT waited FROM hawser.stop_waiting($1)", [topics])).rows[0];
  /** Notifications come before the answer to what follows them. */
  const heardSoFar = async () => {
    await listener.query("SELECT 1");
    return heard.splice(0);
  };
  const locks = async (one: pg.Client) =>
    (await one.query("SELECT mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'")).rows;

  it("is notified of what is enqueued for its topics, and no one notifies a worker that does not", async () => {
    await enqueue(client, "t", ["a"]);
    expect(await heardSoFar()).toEqual([]);
    expect(await wait("t")).toMatchObject({ waits: true });
    await enqueue(client, "t", ["b"]);
    await enqueue(client, "u-other", ["c"]);
    expect(await heardSoFar()).toEqual(["t"]);
    expect(await stop("t")).toEqual({ waited: true });
    await enqueue(client, "t", ["d"]);
    expect(await heardSoFar()).toEqual([]);
    expect([await locks(client), await locks(listener)]).toEqual([[], []]);
  });

  it("is notified of what others leave: who ends, gives back, ends another one, or makes copies", async () => {
    const [one, two] = [await TestWorker.open(client), await TestWorker.open(client)];
    await enqueue(client, "t", ["a", "b"]);
    const [a] = await one.take();
    await wait("t");
    await one.giveBack(a!);
    expect(await heardSoFar()).toEqual(["t"]);
    await one.close();
    expect(await heardSoFar()).toEqual(["t"]);
    const three = await TestWorker.open(client);
    await silence(three);
    await two.extend();
    expect(await heardSoFar()).toEqual(["t"]);
    await enqueue(other, "t", ["m"], { toAll: true });
    await heardSoFar();
    await two.take();
    expect(await heardSoFar()).toEqual(["t"]);
  });

  it("knows the transactions that may not have seen it, and those have ended once the horizon has passed them", async () => {
    await other.query("BEGIN");
    await enqueue(other, "t", ["a"]);
    const { horizon } = await wait("t");
    const passed = "SELECT pg_snapshot_xmin(pg_current_snapshot()) >= $1::xid8 AS passed";
    expect(await rows(passed, horizon)).toEqual([{ passed: false }]);
    await other.query("COMMIT");
    expect(await heardSoFar()).toEqual([]);
    await eventually("others of the server have ended, too", async () => (await rows(passed, horizon))[0]!["passed"]);
  });

  it("holds few locks, however many topics it has", async () => {
    await wait(...Array.from({ length: 2_000 }, (_, n) => `topic-${n}`));
    const held = await locks(listener);
    expect(held.length).toBeLessThanOrEqual(32);
    expect(new Set(held.map(({ mode }) => mode))).toEqual(new Set(["ShareLock"]));
  });

  it("is told to look by itself while another login has its lock, who causes notifications alone", async () => {
    const [{ locks: keys }] = (await rows<{ locks: string[] }>("SELECT locks FROM hawser.wait_locks('{t}')")) as [
      { locks: string[] },
    ];
    await other.query("SELECT pg_advisory_lock($1)", [keys[0]]);
    expect(await wait("t")).toMatchObject({ waits: false });
    expect(await locks(listener)).toEqual([]);
    await enqueue(client, "t", ["a"]);
    expect(await heardSoFar()).toEqual(["t"]);
    await other.query("SELECT pg_advisory_unlock_all()");
    await enqueue(client, "t", ["b"]);
    expect(await heardSoFar()).toEqual([]);
  });
});
