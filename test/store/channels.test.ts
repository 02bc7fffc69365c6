import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openStore } from "../../src/jobs-and-peers/peer-store/store.js";
import { catalogChannel, messageChannel } from "../../src/jobs-and-peers/store/notifications.js";
import { eventually } from "../support/eventually.js";
import { terminateHolder, type World, world } from "./support/world.js";

describe("channels", () => {
  let w: World;
  beforeAll(async () => {
    w = await world();
  });
  afterAll(() => w[Symbol.asyncDispose]());

  it("have one id each, however many callers request it first", async () => {
    const other = await openStore({ databaseUrl: `${w.url}?application_name=other` });
    const sender = { name: "a", sourceTopic: "b" };
    const asked = Array.from({ length: 20 }, (_, n) => (n % 2 === 0 ? w.store : other).openChannel(sender, "c"));
    const keys = await Promise.all(asked);
    expect(new Set(keys).size).toBe(1);
    const topics = await Promise.all(
      Array.from({ length: 20 }, (_, n) => (n % 2 === 0 ? w.store : other).idOfTopic("t")),
    );
    expect(new Set(topics).size).toBe(1);
    expect(topics[0]).not.toBe(keys[0]);
    expect(await w.store.topicOfId(topics[0]!)).toBe("t");
    expect(await w.store.topicOfId(99_999)).toBeUndefined();
    await other.close();
  });

  it("are those of their listener", async () => {
    const sender = { name: "one", sourceTopic: "source" };
    const channelId = await w.store.openChannel(sender, "two");
    expect(await w.store.openChannel(sender, "two")).toBe(channelId);
    expect(await w.store.channelsOwnedBy("one")).toEqual([]);
    expect(await w.store.channelsOwnedBy("two")).toEqual([
      {
        channelId,
        channelName: "one:source:two",
        senderName: "one",
        sourceTopic: "source",
        cursor: { epoch: 0, number: 0 },
        hasRows: false,
      },
    ]);
    expect(await w.store.channel(99_999)).toBeUndefined();
  });

  it("know the epochs of names", async () => {
    const lease = await w.take("somebody");
    expect(await w.store.peerEpoch("somebody")).toBe(lease.epoch);
    expect(await w.store.peerEpoch("nobody")).toBeUndefined();
  });
});

describe("the backlog of a sender", () => {
  const sender = { name: "sender", sourceTopic: "source" };

  it("is counted by listener and topic, with known routes that have none, and cleared", async () => {
    await using w = await world();
    const lease = await w.take("sender");
    const [orders, news] = [await w.store.idOfTopic("orders"), await w.store.idOfTopic("news")];
    const key = await w.channelOf(sender, "listener");
    const otherKey = await w.channelOf(sender, "gone");
    const foreign = await w.channelOf({ name: "sender", sourceTopic: "another source" }, "listener");
    const message = (topicId: number) => ({ topicId, payload: Buffer.from("x") });
    await w.store.storeMessages(lease, key, 1, [message(orders), message(orders), message(news)]);
    await w.store.storeMessages(lease, otherKey, 1, [message(orders)]);
    await w.store.storeMessages(lease, foreign, 1, [message(orders)]);
    await w.operator.query(
      `INSERT INTO hawser_peer_data.listeners (topic, addr, listener_name)
       VALUES ('news', 'h:1', 'listener'), ('orders', 'h:1', 'listener'), ('orders', 'h:2', 'idle')`,
    );
    await w.store.rememberRoute(sender, "orders", { addr: "h:1", name: "listener", maxMessageBytes: 9 });
    await w.store.rememberRoute(sender, "orders", { addr: "h:2", name: "idle", maxMessageBytes: 9 });

    expect((await w.store.pending(sender)).count).toBe(4);
    expect((await w.store.pending(sender)).listeners).toEqual([
      { address: "h:1", topic: "news", name: "listener", count: 1 },
      { address: "", topic: "orders", name: "gone", count: 1 },
      { address: "h:1", topic: "orders", name: "listener", count: 2 },
      { address: "h:2", topic: "orders", name: "idle", count: 0 },
    ]);

    // Handled, and not deleted yet.
    await w.operator.query("INSERT INTO hawser_peer_data.cursors (channel_id, epoch, number) VALUES ($1, $2, 2)", [
      key,
      lease.epoch,
    ]);
    expect((await w.store.pending(sender)).count).toBe(2);

    await expect(w.store.clearStoredMessages(sender)).rejects.toMatchObject({ code: "name_in_use" });
    expect((await w.store.pending(sender)).count).toBe(2);
    await lease.release({ clean: true });
    await w.store.clearStoredMessages(sender);
    expect((await w.store.pending(sender)).listeners).toEqual([]);
    expect((await w.store.pending({ name: "sender", sourceTopic: "another source" })).count).toBe(1);
    expect((await w.store.channel(key))!.cursor).toEqual({ epoch: lease.epoch, number: 2 });
  });

  it("is cleared for good: an owner that has lost its session stores no more, and loses its name", async () => {
    await using w = await world();
    const lease = await w.take("sender");
    const key = await w.channelOf(sender, "listener");
    const message = { topicId: await w.store.idOfTopic("orders"), payload: Buffer.from("x") };
    expect(await w.store.storeMessages(lease, key, 1, [message])).toBe("stored");
    const lost = new Promise<void>((resolve) => lease.onChange((state) => state === "lost" && resolve()));
    // Between the holder's session and its next one, which waits for the row.
    const clearing = await w.connect();
    await clearing.query("BEGIN");
    await clearing.query("SELECT FROM hawser_data.owners WHERE what = 'peer:sender' FOR UPDATE");
    await terminateHolder(w.operator, "sender");
    await eventually("the session has ended", async () => {
      const { rows } = await w.operator.query(
        "SELECT hawser.is_alive(pid, life) AS alive FROM hawser_data.owners WHERE what = 'peer:sender'",
      );
      return rows[0].alive === false;
    });
    const { rows: cleared } = await clearing.query(
      "SELECT deleted FROM hawser.clear_stored_messages('sender', 'source')",
    );
    expect(cleared).toEqual([{ deleted: "1" }]);
    await clearing.query("COMMIT");
    expect(await w.store.storeMessages(lease, key, 2, [message])).toBe("fenced");
    await lost;
    expect((await w.store.pending(sender)).count).toBe(0);
  });
});

describe("announcements", () => {
  it("reach their listener, also over a lost session, and no other", async () => {
    await using w = await world();
    const name = "a listener whose name is longer than a channel's may be ".repeat(4);
    const heard: string[] = [];
    w.store.on("announced", (channelId, listenerName) => heard.push(`${channelId} ${listenerName}`));
    const next = (): Promise<void> =>
      new Promise((resolve) => {
        const end = w.store.on("announced", () => {
          end();
          resolve();
        });
      });
    await w.store.listenForMessages(name);
    await w.store.listenForMessages("other");
    let announced = next();
    await w.store.announce("nobody", 1);
    await w.store.announce(name, 2);
    await announced;
    const up = new Promise<void>((resolve) => w.store.on("session", (state) => state === "up" && resolve()));
    const { rows } = await w.operator.query(
      "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'hawser'",
    );
    await up;
    // Those of the pool, too: a statement on one that is about to end would fail.
    await eventually("all of them have ended", async () => {
      const left = "SELECT FROM pg_stat_activity WHERE pid = ANY ($1)";
      return (await w.operator.query(left, [rows.map(({ pid }) => pid)])).rowCount === 0;
    });
    announced = next();
    await w.store.announce(name, 4);
    await announced;
    expect(heard).toEqual([`2 ${name}`, `4 ${name}`]);
  });

  it("ignore other payloads, such as an operator's NOTIFY", async () => {
    await using w = await world();
    const heard: unknown[] = [];
    w.store.on("catalog", (change) => heard.push(change));
    await w.store.listenForMessages("listener");
    const announced = new Promise<void>((resolve) => {
      w.store.on("announced", (channelId) => {
        heard.push(channelId);
        resolve();
      });
    });
    for (const payload of ["no json", "null", "{}"]) {
      await w.operator.query("SELECT pg_notify($1, $2)", [catalogChannel, payload]);
    }
    for (const payload of ["", "text", "-1", "1.5", "7"]) {
      await w.operator.query("SELECT pg_notify($1, $2)", [messageChannel("listener"), payload]);
    }
    await announced;
    expect(heard).toEqual([7]);
  });
});
