/** What waits in the queue, as operators see it: who has it, what is put off, and how much of it is read for that. */
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { queueConstants } from "../../generated/ts/settings/queue.js";
import type { Database } from "../../src/jobs-and-peers/store/index.js";
import {
  findByNumber,
  findMessage,
  listPeers,
  listPending,
  listTopics,
  messageIdsOf,
  outboxOverview,
  withCommandDatabase,
} from "../../src/operating/operate/index.js";
import { storedCounts } from "../../src/operating/operate/stored-counts.js";
import { login } from "../installation/support/logins.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { enqueue, TestWorker } from "./support/test-worker.js";

let database: TestDatabase;
let client: pg.Client;

beforeAll(async () => {
  database = await testDatabase({ nats: false });
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
});
afterAll(async () => {
  await client?.end();
  await database?.drop();
});
beforeEach(async () => {
  await client.query(
    "TRUNCATE hawser_data.queue, hawser_data.workers, hawser_data.dead_letters, hawser_peer_data.listeners, hawser_peer_data.peers, hawser_data.served_topics",
  );
});

const inDatabase = <T>(work: (database: Database) => Promise<T>): Promise<T> => withCommandDatabase(database.url, work);

/** The time after which a worker that says nothing is ended has passed for it; nobody has ended it. */
async function silence({ id }: TestWorker): Promise<void> {
  await client.query("UPDATE hawser_data.workers SET beat_at = beat_at - interval '1 day' WHERE id = $1", [String(id)]);
}

async function listen(topic: string, listener: string, group: string | null = null): Promise<void> {
  await client.query(
    "INSERT INTO hawser_peer_data.listeners (topic, addr, listener_name, durable) VALUES ($1, $2 || ':1', $2, true)",
    [topic, listener],
  );
  await client.query("INSERT INTO hawser_peer_data.peers (name, epoch, group_name) VALUES ($1, 1, $2)", [
    listener,
    group,
  ]);
}

/** Rows of the backlog of a topic: listener, group, state, number of messages. */
async function backlog(topic?: string): Promise<(string | number | null)[][]> {
  const rows = await inDatabase((each) => listPending(each, { topic }));
  return rows
    .map((row) => [row.listener, row.group, row.state, row.count])
    .toSorted((a, b) => String(a).localeCompare(String(b), "en"));
}

describe("the backlog", () => {
  it("says what a worker has, and what anybody may take", async () => {
    await enqueue(client, "t", ["1", "2", "3", "4", "5"]);
    expect(await backlog("t")).toEqual([[null, null, "unserved", 5]]);
    const worker = await TestWorker.open(client, { name: "one" });
    expect(await backlog("t")).toEqual([[null, null, "running", 5]]);
    await worker.take({ most: 2 });
    expect(await backlog("t")).toEqual([
      [null, null, "running", 3],
      ["one", null, "running", 2],
    ]);
    const [row] = await inDatabase((each) => listPending(each));
    expect(row).toMatchObject({ sender: null, from: null, hasMore: false, oldest: expect.any(Date) });
  });

  it("says what each of several workers has, however many, and what is behind others of its key", async () => {
    const texts = Array.from({ length: 100 }, (_, nth) => String(nth));
    await enqueue(client, "t", texts.slice(0, 20), { key: "k" });
    await enqueue(client, "t", texts);
    const has: [string | null, number][] = [];
    let left = 120;
    for (const [name, most] of [
      ["one", 1],
      ["two", 30],
      ["three", 60],
    ] as const) {
      const worker = await TestWorker.open(client, { name });
      const taken = await worker.take({ most });
      has.push([name, taken.length]);
      left -= taken.length;
    }
    expect((await backlog("t")).map(([listener, , , count]) => [listener, count])).toEqual([
      [null, left],
      ...has.toSorted(([a], [b]) => a!.localeCompare(b!, "en")),
    ]);
    expect(has[1]![1] + has[2]![1]).toBeGreaterThan(60);
  });

  it("says that a worker that is silent has messages still, and what is free when it was ended", async () => {
    await enqueue(client, "t", ["1", "2", "3"]);
    const worker = await TestWorker.open(client, { name: "one" });
    await worker.take({ most: 1 });
    await silence(worker);
    const [other] = await Promise.all([TestWorker.open(client, { name: "two", topics: ["u"] })]);
    expect(await backlog("t")).toEqual([
      [null, null, "stopped", 2],
      ["one", null, "stopped", 1],
    ]);
    await other.extend();
    expect(await backlog("t")).toEqual([[null, null, "stopped", 3]]);
  });

  it("says what is put off until it is tried again, which is late for nobody", async () => {
    await enqueue(client, "t", ["1", "2"]);
    const worker = await TestWorker.open(client, { name: "one" });
    const [first] = await worker.take({ most: 1 });
    await worker.retry(first!, 60_000);
    expect(await backlog("t")).toEqual([
      [null, null, "retrying", 1],
      [null, null, "running", 1],
    ]);
    await client.query("UPDATE hawser_data.queue SET due_at = due_at - interval '1 day'");
    expect(await backlog("t")).toEqual([[null, null, "running", 2]]);
  });

  it("says whether the listener, or the group, that messages are for runs", async () => {
    await listen("t", "away");
    await listen("t", "member", "reds");
    await enqueue(client, "t", ["x"], { recipient: "@away" });
    await enqueue(client, "t", ["x"], { recipient: "@mistyped" });
    await enqueue(client, "t", ["x"], { recipient: "#reds" });
    await TestWorker.open(client, { name: "here" });
    await enqueue(client, "t", ["x"], { recipient: "@here" });
    expect(await backlog("t")).toEqual([
      [null, "reds", "stopped", 1],
      ["away", null, "stopped", 1],
      ["here", null, "running", 1],
      ["mistyped", null, "unserved", 1],
    ]);
    await TestWorker.open(client, { name: "red-1", group: "reds" });
    expect((await backlog("t"))[0]).toEqual([null, "reds", "running", 1]);
  });

  it("says who served a topic last and until when, which no mistyped one can", async () => {
    const [first, second] = [
      await TestWorker.open(client, { name: "mails-1" }),
      await TestWorker.open(client, { name: "mails-2" }),
    ];
    await enqueue(client, "t", ["x"]);
    await enqueue(client, "mistyped", ["x"]);
    await enqueue(client, "t", ["x"], { recipient: "@mails-2" });
    await first.close();
    const shown = async () => {
      const rows = await inDatabase((each) => listPending(each));
      return rows
        .map(({ topic, listener, state, servedBy, servedUntil }) => [
          topic,
          listener,
          state,
          servedBy,
          servedUntil !== null,
        ])
        .sort();
    };
    expect(await shown()).toEqual([
      ["mistyped", null, "unserved", null, false],
      ["t", null, "running", null, false],
      ["t", "mails-2", "running", null, false],
    ]);
    // One that was killed is known until others forget it, and then, too.
    await silence(second);
    const atEnd = [
      ["mistyped", null, "unserved", null, false],
      ["t", null, "stopped", "mails-1", true],
      ["t", "mails-2", "stopped", null, false],
    ];
    expect(await shown()).toEqual(atEnd);
    await client.query("UPDATE hawser_data.workers SET gone_at = now() - interval '2 days'");
    await (await TestWorker.open(client, { name: "other", topics: ["u"] })).extend();
    expect((await client.query("SELECT name FROM hawser_data.workers")).rows).toEqual([{ name: "other" }]);
    expect((await shown())[1]).toEqual(atEnd[1]);
    await client.query("DELETE FROM hawser_data.queue WHERE recipient <> ''");
    const { rows } = await client.query("SELECT served_until FROM hawser_data.served_topics WHERE topic = 't'");
    expect((await inDatabase((each) => listTopics(each)))[1]).toMatchObject({
      ...{ topic: "t", state: "stopped", waiting: 1, servedBy: "mails-1", servedUntil: rows[0].served_until },
    });
  });

  it("keeps who served a topic for the last topics of a role, and for the retention, and waits for nobody", async () => {
    const close = async (name: string, topics: string[]) => (await TestWorker.open(client, { name, topics })).close();
    const names = Array.from(
      { length: queueConstants.servedTopics },
      (_, nth) => `old-${String(nth).padStart(4, "0")}`,
    );
    for (let from = 0; from < names.length; from += 250) await close("w", names.slice(from, from + 250));
    await close("w", ["new"]);
    const kept = async () =>
      (await client.query("SELECT topic FROM hawser_data.served_topics ORDER BY topic")).rows.map(({ topic }) => topic);
    expect(await kept()).toHaveLength(queueConstants.servedTopics);
    expect((await kept())[0]).toBe("new");
    // Of another session, which has changed all of them and has not committed.
    const other = new pg.Client({ connectionString: database.url });
    await other.connect();
    onTestFinished(() => other.end());
    await other.query("BEGIN; UPDATE hawser_data.served_topics SET name = 'other'");
    await close("w", ["new", "newer"]);
    await other.query("ROLLBACK");
    expect(await kept()).toContain("newer");
    await client.query("UPDATE hawser_data.served_topics SET served_until = now() - interval '1000 years'");
    await client.query("SELECT hawser.expire_dead_letters(1000)");
    expect((await kept()).length).toBeLessThan(10);
  });

  it("names the group of a topic that members of it alone serve", async () => {
    await enqueue(client, "t", ["x"]);
    await TestWorker.open(client, { name: "red-1", group: "reds" });
    await listen("t", "red-2", "reds");
    expect(await backlog("t")).toEqual([[null, "reds", "running", 1]]);
    await TestWorker.open(client, { name: "alone" });
    expect(await backlog("t")).toEqual([[null, null, "running", 1]]);
  });

  it("is counted up to a number of rows, of which each place and role has its part", async () => {
    await client.query(
      `INSERT INTO hawser_data.queue (topic, recipient, role, rank, id, payload, enqueued_at)
       SELECT t.topic, '', r.role, n, n, 'abc', now() - interval '1 day' + n * interval '1 s'
         FROM (VALUES ('few', 1), ('many', 5000)) AS t (topic, rows), (VALUES ('a'), ('b')) AS r (role), generate_series(1, t.rows) AS n`,
    );
    const rows = await inDatabase((each) => listPending(each, { maxRows: 1000 }));
    expect(rows.map(({ topic, count, hasMore, bytes }) => [topic, count, hasMore, bytes]).sort()).toEqual([
      ["few", 2, false, null],
      ["many", 998, true, null],
    ]);
    const whole = await inDatabase((each) => listPending(each, { topic: "many", maxRows: 1_000_000 }));
    expect(whole).toMatchObject([{ count: 10_000, hasMore: false, oldest: rows[0]!.oldest }]);
  });

  it("keeps its mark in every count: a sum of what was counted in part is not the whole", async () => {
    await client.query(
      `INSERT INTO hawser_data.queue (topic, recipient, role, rank, id, payload)
       SELECT 't' || t, '', 'r', n, n, 'abc' FROM generate_series(1, 300) AS t, generate_series(1, CASE t WHEN 1 THEN 160000 ELSE 340 END) AS n`,
    );
    await client.query(
      "INSERT INTO hawser_data.queue (topic, recipient, role, rank, id, payload) VALUES ('t1', '@one', 'r', 1, 1, 'x')",
    );
    const status = await client.query(
      "SELECT is_complete, waiting::integer AS waiting FROM hawser.outbox_status WHERE kind = 'peer'",
    );
    expect(status.rows).toEqual([{ is_complete: false, waiting: expect.any(Number) }]);
    expect(status.rows[0]!.waiting).toBeLessThanOrEqual(queueConstants.countedMessages);
    const one = await inDatabase((each) => listPending(each, { topic: "t1" }));
    expect(one.map(({ count, hasMore }) => [count, hasMore]).sort()).toEqual([
      [1, false],
      [160_000, false],
    ]);
    const { backlog: all } = await inDatabase((each) => storedCounts(each).countShared());
    expect(all.find(({ topic }) => topic === "other")).toMatchObject({ messages: 250 * 340, hasMore: false });
    expect(all.find(({ topic }) => topic === "t1")).toMatchObject({ messages: 160_001, hasMore: false });
    const limited = await inDatabase((each) => listPending(each, { maxRows: 10_000 }));
    expect(limited.find(({ topic }) => topic === "t2")).toMatchObject({ count: 100, hasMore: true });
  });

  it("walks over so many topics that nobody serves, shows all that are served, and says that there are more", async () => {
    await client.query(
      `INSERT INTO hawser_data.queue (topic, recipient, role, rank, id, payload)
       SELECT 'a' || n, '', 'other', n, n, 'x' FROM generate_series(1, 20000) AS n;
       INSERT INTO hawser_data.queue (topic, recipient, role, rank, id, payload) VALUES ('served', '', 'r', 30000, 30000, 'x'), ('set', '', 'r', 30001, 30001, 'x')`,
    );
    const worker = await TestWorker.open(client, { topics: ["served"] });
    await client.query("SELECT hawser.pause_topic('set')");
    const { rows } = await client.query<{ topic: string; is_complete: boolean }>(
      "SELECT topic, is_complete FROM hawser.backlog(100000)",
    );
    expect(rows.length).toBe(2002);
    expect(rows.filter(({ topic }) => topic === "served" || topic === "set").map((row) => row.is_complete)).toEqual([
      true,
      true,
    ]);
    expect(rows.filter((row) => !row.is_complete).length).toBe(1);
    const status = await client.query("SELECT is_complete FROM hawser.outbox_status WHERE kind = 'peer'");
    expect(status.rows).toEqual([{ is_complete: false }]);
    await client.query("SELECT hawser.resume_topic('set')");
    await worker.close();
  });

  it("shows the oldest age of messages that those with a higher priority pass, however many these are", async () => {
    for (const priority of [-5, 0, 2, 9]) await enqueue(client, `starving ${priority}`, ["old"], { priority });
    await client.query("UPDATE hawser_data.queue SET enqueued_at = '2030-01-31T12:00:00Z'");
    const fresh = Array.from({ length: 300 }, () => "fresh");
    for (const priority of [-5, 0, 2, 9]) {
      await enqueue(client, `starving ${priority}`, fresh, { priority: 10 });
      await enqueue(client, `starving ${priority}`, fresh, { priority: 11 });
    }
    await client.query("UPDATE hawser_data.queue SET enqueued_at = '2031-01-31T12:00:00Z' WHERE payload = 'fresh'");
    const rows = await inDatabase((each) => listPending(each, { maxRows: 100 }));
    expect(rows.map(({ oldest, hasMore, count }) => [oldest.getUTCFullYear(), hasMore, count])).toEqual(
      Array.from({ length: 4 }, () => [2030, true, 201]),
    );
  });

  it("reads no more than it counts, also of a role that uses thousands of priorities", async () => {
    await client.query(
      `SELECT hawser.enqueue('t', 'x'::text, priority => p) FROM generate_series(1, 1001) AS s (p), generate_series(1, 3)`,
    );
    const [row] = await inDatabase((each) => listPending(each, { maxRows: 100 }));
    expect(row).toMatchObject({ count: 1_001, hasMore: true });
  });

  it("is a part of what peers, topics and the outbox show", async () => {
    await listen("t", "listed");
    const worker = await TestWorker.open(client, { name: "one", topics: ["t", "u"] });
    await enqueue(client, "t", ["1", "2", "3"]);
    await worker.take({ most: 2 });
    const peers = await inDatabase((each) => listPeers(each));
    expect(peers).toMatchObject([
      { name: "one", running: true, clean: false, epoch: null, topics: ["t", "u"], waiting: 2 },
      { name: "listed", running: false, topics: ["t"], waiting: 0 },
    ]);
    const topics = await inDatabase((each) => listTopics(each));
    expect(topics).toMatchObject([
      {
        ...{ topic: "t", state: "running", waiting: 3, hasMore: false, listenerCount: 2 },
        listeners: [
          { name: "one", address: "", running: true },
          { name: "listed", address: "listed:1", running: false },
        ],
      },
      { topic: "u", state: "running", waiting: 0, oldest: null, listeners: [{ name: "one" }] },
    ]);
    const [, ofPeers] = await inDatabase(outboxOverview);
    expect(ofPeers).toMatchObject({ kind: "peer", waiting: 3, oldestWaitingFor: "t", relay: null, segments: [] });
    await client.query(
      "INSERT INTO hawser_peer_data.listeners (topic, addr, listener_name, durable) VALUES ('t', 'one:1', 'one', false)",
    );
    const counted = await inDatabase((each) => storedCounts(each).storedCountersOf("one"));
    expect(counted.backlog).toMatchObject([{ topic: "t", messages: 2, oldestAt: expect.any(Number) }]);
    await silence(worker);
    expect((await inDatabase((each) => listPeers(each)))[0]).toMatchObject({ name: "one", running: false, waiting: 2 });
  });

  it("reads no more than it counts, whatever the statistics say", async () => {
    await client.query("VACUUM ANALYZE hawser_data.queue, hawser_data.workers");
    await client.query(
      `INSERT INTO hawser_data.queue (topic, recipient, role, rank, id, payload)
       SELECT 't' || n % 3, '', 'r' || n % 2, n, n, 'x' FROM generate_series(1, 30000) AS n`,
    );
    const plans: string[] = [];
    const explained = new pg.Client({ connectionString: database.url });
    await explained.connect();
    onTestFinished(() => explained.end());
    explained.on("notice", ({ message }) => plans.push(message ?? ""));
    await explained.query(
      `LOAD 'auto_explain'; SET auto_explain.log_level = notice; SET auto_explain.log_min_duration = 0;
       SET auto_explain.log_nested_statements = on; SET auto_explain.log_analyze = on`,
    );
    for (const call of [
      "hawser.backlog(600)",
      "hawser.queue_backlog(600, '{}')",
      "hawser.queue_backlog(600, '{t0,none,t2}')",
      "hawser.queue_find(17, NULL, 10)",
    ]) {
      plans.length = 0;
      await explained.query(`SELECT FROM ${call}`);
      const lines = plans.join("\n").split("\n");
      const scans = lines.filter(
        (line) => /\bqueue(_\w+)? on|on queue\b|Sort {2}/.test(line) && !line.includes("never executed"),
      );
      expect(
        scans.some((line) => /using queue_(pkey|id) on queue/.test(line)),
        call,
      ).toBe(true);
      for (const scan of scans) {
        expect(scan).toMatch(/using queue_(pkey|ready|due|id|later) on queue|Sort {2}/);
        const [, rows, loops] = /actual time=\S+ rows=([\d.]+) loops=(\d+)/.exec(scan)!;
        expect(Number(rows) * Number(loops), scan).toBeLessThanOrEqual(600);
      }
    }
  });
});

describe("a message in the queue", () => {
  const found = (id: string) =>
    inDatabase(async (each) => {
      const numbered = await findByNumber(each, id, "queue");
      return [...numbered, ...(await findMessage(each, id, messageIdsOf(id, numbered), "queue"))];
    });

  it("is found by its number, by the id that its handler sees, and by its message id", async () => {
    const headers: [string, string][] = [
      ["message-id", "order-17"],
      ["traceparent", "00-1-2-01"],
    ];
    const [id] = await enqueue(client, "t", ["x"], { headers, recipient: "#reds" });
    await enqueue(client, "t", ["x"], { headers: [["order-17", "message-id"]] });
    const expected = { id, topic: "t", listener: null, groupName: "reds", messageId: "order-17", worker: null };
    for (const by of [String(id), "order-17"])
      expect(await found(by), by).toMatchObject([{ ...expected, traceparent: "00-1-2-01", attempts: 0, dueAt: null }]);
    for (const by of [String(id! + 1_000n), "message-id", "order-1"]) expect(await found(by), by).toEqual([]);
    const worker = await TestWorker.open(client, { name: "one", group: "reds" });
    await worker.take();
    expect(await found(String(id))).toMatchObject([{ worker: "one" }]);
  });

  it("is found by members of the role that enqueued it", async () => {
    const [id] = await enqueue(client, "t", ["x"]);
    await using peer = await login(database.url, "IN ROLE hawser_peer");
    expect(await withCommandDatabase(peer.url, (each) => findByNumber(each, String(id), "queue"))).toEqual([]);
  });
});
