/** What waits for listeners: who could take it, how much of it is counted, and how it is listed. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Database } from "../../src/jobs-and-peers/store/index.js";
import {
  countShared,
  listPeers,
  listPending,
  listTopics,
  withCommandDatabase,
} from "../../src/operating/operate/index.js";
import { gate } from "../peer/support/gate.js";
import { type PeerWorld, peerWorld } from "../peer/support/world.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer } from "../support/on-server.js";

describe("what waits", () => {
  let world: PeerWorld;
  beforeAll(async () => {
    world = await peerWorld();
  });
  afterAll(() => world?.[Symbol.asyncDispose]());
  const inDatabase = <T>(work: (database: Database) => Promise<T>): Promise<T> => withCommandDatabase(world.url, work);

  it("says whether somebody can take it, for topics and listeners that nobody knows, groups and stopped listeners", async () => {
    const shop = await world.started("shop-1");
    const waiting = gate();
    try {
      const slow = await world.started("slow-1", {}, () => waiting.opened);
      await slow.recordTopic("slow");
      const billing = { topic: "bills", defaults: { group: "billing", durable: true } };
      for (const name of ["bills-1", "bills-2"]) await (await world.started(name, billing)).stop();
      const orders = await world.started("orders-1", { defaults: { durable: true } });
      expect((await shop.send("orders", "met")).outcome).toBe("delivered");
      await orders.stop();
      expect((await shop.send("orders", "1")).outcome).toBe("stored");
      await world.query(`
        SELECT hawser.enqueue('mistyped', 'x') FROM generate_series(1, 3);
        SELECT hawser.enqueue('bills', 'x') FROM generate_series(1, 2);
        SELECT hawser.enqueue('slow', 'x');
        SELECT hawser.enqueue_peer('orders', ARRAY['x'::bytea], NULL, NULL, NULL, 'ordrs-1', NULL, false, NULL, NULL)`);
      const rows = async () => {
        const listed = await inDatabase((database) => listPending(database));
        return listed
          .map(({ topic, listener, group, state, count }) => ({ topic, listener, group, state, count }))
          .toSorted((a, b) => `${a.topic} ${a.listener}`.localeCompare(`${b.topic} ${b.listener}`, "en"));
      };
      await eventually("the slow one has its message", async () =>
        (await rows()).some(({ listener }) => listener === "slow-1"),
      );
      expect(await rows()).toEqual([
        { topic: "bills", listener: null, group: "billing", state: "stopped", count: 2 },
        { topic: "mistyped", listener: null, group: null, state: "unserved", count: 3 },
        { topic: "orders", listener: "orders-1", group: null, state: "stopped", count: 1 },
        { topic: "orders", listener: "ordrs-1", group: null, state: "unserved", count: 1 },
        { topic: "slow", listener: "slow-1", group: null, state: "running", count: 1 },
      ]);
      const member = await world.started("bills-2", billing);
      await eventually("the group has its messages", async () => member.received.all.length === 2);
      await eventually("nothing waits for it", async () => (await rows()).every(({ topic }) => topic !== "bills"));
    } finally {
      waiting.open();
    }
  });
});

describe("a large backlog", () => {
  let database: TestDatabase;
  beforeAll(async () => {
    database = await testDatabase();
    await onServer(
      database.url,
      `INSERT INTO hawser_peer_data.topics (topic, id) SELECT 'topic-' || n, n FROM generate_series(1, 120) AS n`,
      `INSERT INTO hawser_peer_data.channels (channel_name, channel_id) SELECT 'a:b:listener-' || n, n FROM generate_series(1, 120) AS n`,
      // The lower the number, the older; of the first there are many.
      `INSERT INTO hawser_peer_data.stored_messages (channel_id, epoch, number, topic_id, payload, stored_at)
       SELECT n, 1, k, n, 'x', now() - interval '1 day' + n * interval '1 min' + k * interval '1 ms'
         FROM generate_series(1, 120) AS n, generate_series(1, CASE n WHEN 1 THEN 5000 ELSE 2 END) AS k`,
      // Up to the cursor it is handled.
      "INSERT INTO hawser_peer_data.cursors (channel_id, epoch, number) VALUES (2, 1, 1)",
    );
  });
  afterAll(() => database?.drop());
  const inDatabase = <T>(work: (database: Database) => Promise<T>): Promise<T> =>
    withCommandDatabase(database.url, work);

  it("is counted up to a number of rows, of which each channel has its part, and its oldest message is right", async () => {
    const all = await inDatabase((each) => listPending(each, { maxRows: 12_000 }));
    expect(all.slice(0, 3)).toMatchObject([
      { topic: "topic-1", count: 100, hasMore: true, listener: "listener-1", state: "unserved" },
      { topic: "topic-2", count: 1, hasMore: false },
      { topic: "topic-3", count: 2, hasMore: false },
    ]);
    const whole = await inDatabase((each) => listPending(each, { maxRows: 1_000_000 }));
    expect(whole[0]).toMatchObject({ topic: "topic-1", count: 5000, hasMore: false, oldest: all[0]!.oldest });
  });

  it("is listed from the oldest on, by pages, and by a part of a name", async () => {
    const topics = async (listing: Parameters<typeof listPending>[1]) =>
      (await inDatabase((each) => listPending(each, listing))).map(({ topic }) => topic);
    expect(await topics({ limit: 2 })).toEqual(["topic-1", "topic-2"]);
    expect(await topics({ limit: 2, offset: 100 })).toEqual(["topic-101", "topic-102"]);
    expect(await topics({ filter: "TOPIC-12" })).toEqual(["topic-12", "topic-120"]);
    expect(await topics({ filter: "%" })).toEqual([]);
    const names = (await inDatabase((each) => listPeers(each, { limit: 2, offset: 1 }))).map(({ name }) => name);
    expect(names).toEqual(["listener-2", "listener-3"]);
    expect(await inDatabase((each) => listTopics(each, { filter: "none" }))).toEqual([]);
  });

  it("has a bounded number of series, the oldest by name and the others as one", async () => {
    const { backlog } = await inDatabase((each) =>
      countShared((text, values = []) => each.query("count the backlog", { text, values })),
    );
    expect(backlog).toHaveLength(51);
    const sum = backlog.reduce((all, { messages }) => all + messages, 0);
    expect(sum).toBe(2 * 119 - 1 + 5_000);
    const others = backlog.find(({ topic }) => topic === "other")!;
    expect(others).toMatchObject({ group: "", state: "unserved", messages: 140 });
    const named = backlog.filter(({ topic }) => topic !== "other").map(({ topic }) => Number(topic.split("-")[1]));
    expect(named.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, nth) => nth + 1));
    expect(Math.min(...backlog.map(({ oldestAt }) => oldestAt))).toBeLessThan(others.oldestAt);
  });
});
