import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { openStore } from "../../src/jobs-and-peers/peer-store/store.js";
import type { Lease } from "../../src/jobs-and-peers/store/index.js";
import { eventually } from "../support/eventually.js";
import { listenersOf, type World, world } from "./support/world.js";

const sender = { name: "sender", sourceTopic: "source" };

describe("the directory", () => {
  let w: World;
  let one: Lease;
  let two: Lease;

  beforeAll(async () => {
    w = await world();
    one = await w.take("one");
    two = await w.take("two");
  });
  afterAll(() => w[Symbol.asyncDispose]());
  beforeEach(() => w.operator.query("TRUNCATE hawser_peer_data.listeners, hawser_peer_data.routes"));

  function register(lease: Lease, addr: string, ...topics: string[]): Promise<void> {
    return w.store.registerListener(lease, {
      addr,
      maxMessageBytes: 1000,
      durable: false,
      ...(lease === two && { group: "workers" }),
      topics: topics.map((topic, index) => ({ topic, subscribed: index > 0 })),
    });
  }

  async function routesOf(topic: string, from = sender) {
    return (await w.store.listenersAndRoutes(from, topic)).routes;
  }

  async function addressesOf(topic: string): Promise<string[]> {
    return (await listenersOf(w.store, topic)).map(({ name, addr }) => `${name}@${addr}`);
  }

  it("lists a topic's listeners in the order of their addresses", async () => {
    await register(two, "10.0.0.2:1", "topic");
    await register(one, "10.0.0.1:1", "topic", "news");
    expect(await listenersOf(w.store, "topic")).toEqual([
      { addr: "10.0.0.1:1", name: "one", maxMessageBytes: 1000, durable: false, epoch: one.epoch, group: undefined },
      { addr: "10.0.0.2:1", name: "two", maxMessageBytes: 1000, durable: false, epoch: two.epoch, group: "workers" },
    ]);
    expect(await addressesOf("news")).toEqual(["one@10.0.0.1:1"]);
    expect(await addressesOf("nothing")).toEqual([]);
  });

  it("says version and certificate of the program that has the name, and forgets those of the one before", async () => {
    const known = async () =>
      (await w.operator.query("SELECT version, certificate_ends_at FROM hawser_peer_data.peers WHERE name = 'three'"))
        .rows[0];
    const none = { version: null, certificate_ends_at: null };
    const listener = { addr: "10.0.0.3:1", maxMessageBytes: 1, durable: false, group: "workers" };
    const said = (end: string) => ({ ...listener, version: "1.2.3", certificateEndsAt: new Date(end) });
    const topics = [{ topic: "topic", subscribed: false }];
    let three = await w.take("three");
    expect(await known()).toEqual(none);
    await w.store.registerListener(three, { ...said("9999-12-31T23:59:59Z"), topics });
    expect(await known()).toEqual({ version: "1.2.3", certificate_ends_at: new Date("9999-12-31T23:59:59Z") });

    await w.store.updateListener(three, said("2030-01-31T12:00:00Z"));
    expect(await known()).toEqual({ version: "1.2.3", certificate_ends_at: new Date("2030-01-31T12:00:00Z") });
    expect(await listenersOf(w.store, "topic")).toMatchObject([{ name: "three", group: "workers" }]);

    for (const end of ["infinity", "-infinity", "10000-01-01Z", "1969-12-31Z"]) {
      const sql = `SELECT hawser.enter_directory('three', $1, 'a:1', 1, false, '{}', '{}', false, 'workers', '1', '${end}')`;
      await expect(w.operator.query(sql, [three.epoch])).rejects.toMatchObject({ code: "23514" });
    }
    await w.store.registerListener(three, { ...listener, topics });
    expect(await known()).toEqual(none);

    await w.store.registerListener(three, { ...said("2030-01-31T12:00:00Z"), topics });
    await three.release({ clean: true });
    expect(await known()).toMatchObject({ version: "1.2.3" });
    three = await w.take("three");
    expect(await known()).toEqual(none);
    await three.release({ clean: true });
  });

  it("keeps no rows of an earlier registration of a name", async () => {
    await register(one, "10.0.0.1:1", "topic", "news");
    await register(one, "10.0.0.1:2", "topic");
    expect(await addressesOf("topic")).toEqual(["one@10.0.0.1:2"]);
    expect(await addressesOf("news")).toEqual([]);
  });

  it("assigns the row of an address to the listener that registered it last", async () => {
    await register(one, "10.0.0.1:1", "topic");
    await register(two, "10.0.0.1:1", "topic");
    expect(await addressesOf("topic")).toEqual(["two@10.0.0.1:1"]);
  });

  it("removes a listener when it stops, unless it is durable", async () => {
    await register(one, "10.0.0.1:1", "topic");
    await w.store.unregister(one, { keepDurable: true });
    expect(await addressesOf("topic")).toEqual([]);
    const durable = { addr: "10.0.0.1:1", maxMessageBytes: 1, durable: true };
    await w.store.registerListener(one, { ...durable, topics: [{ topic: "topic", subscribed: false }] });
    await w.store.unregister(one, { keepDurable: true });
    expect(await addressesOf("topic")).toEqual(["one@10.0.0.1:1"]);
    await w.store.unregister(one, { keepDurable: false });
    expect(await addressesOf("topic")).toEqual([]);
  });

  it("removes an unsubscribed topic from senders' routes too, and only that topic", async () => {
    await register(one, "10.0.0.1:1", "topic");
    const listener = { addr: "10.0.0.1:1", maxMessageBytes: 5, durable: false };
    await w.store.addSubscription(one, { topic: "news", subscribed: true }, listener);
    await register(two, "10.0.0.2:1", "topic", "news");
    for (const topic of ["topic", "news"]) {
      await w.store.rememberRoute(sender, topic, { addr: "10.0.0.1:1", name: "one", maxMessageBytes: 5 });
      await w.store.rememberRoute(sender, topic, { addr: "10.0.0.2:1", name: "two", maxMessageBytes: 5 });
    }
    await w.store.removeSubscriptions(one, ["news"]);
    expect(await addressesOf("news")).toEqual(["two@10.0.0.2:1"]);
    expect(await addressesOf("topic")).toEqual(["one@10.0.0.1:1", "two@10.0.0.2:1"]);
    expect((await routesOf("news")).map(({ name }) => name)).toEqual(["two"]);
    expect((await routesOf("topic")).map(({ name }) => name)).toEqual(["one", "two"]);
  });

  it("keeps a sender's routes when the listener stops, and their changes", async () => {
    await register(one, "10.0.0.1:1", "topic");
    await w.store.rememberRoute(sender, "topic", { addr: "10.0.0.1:1", name: "one", maxMessageBytes: 5 });
    await w.store.rememberRoute(sender, "topic", { addr: "10.0.0.1:9", name: "one", maxMessageBytes: 7 });
    await w.store.unregister(one, { keepDurable: false });
    const routes = await routesOf("topic");
    expect(routes).toMatchObject([{ addr: "10.0.0.1:9", name: "one", maxMessageBytes: 7 }]);
    expect(await routesOf("topic", { ...sender, sourceTopic: "other" })).toEqual([]);
  });

  it("leaves no route to a listener that unsubscribed between the lookup and the save", async () => {
    const route = { addr: "10.0.0.1:1", name: "one", maxMessageBytes: 5 };
    await w.store.rememberRoute(sender, "news", route);
    expect(await routesOf("news")).toEqual([]);

    for (const first of ["sender", "listener"]) {
      await register(one, "10.0.0.1:1", "topic", "news");
      const routes = await w.connect();
      const { rows } = await routes.query("SELECT pg_backend_pid() AS pid");
      await routes.query("BEGIN; LOCK TABLE hawser_peer_data.routes IN ACCESS EXCLUSIVE MODE");
      const waiting = async () => {
        const { rowCount } = await w.operator.query(
          "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> $1",
          [rows[0].pid],
        );
        return rowCount ?? 0;
      };
      const remember = () => w.store.rememberRoute(sender, "news", route);
      const unsubscribe = () => w.store.removeSubscriptions(one, ["news"]);
      const [begun, then] = first === "sender" ? [remember, unsubscribe] : [unsubscribe, remember];
      const begunFirst = begun();
      await eventually("the first waits", async () => (await waiting()) === 1);
      const begunThen = then();
      await eventually("both wait", async () => (await waiting()) === 2);
      await routes.query("COMMIT");
      await Promise.all([begunFirst, begunThen]);
      expect(await routesOf("news"), `${first} first`).toEqual([]);
    }
  });

  it("notifies of every change", async () => {
    const told: string[] = [];
    const seen = new Promise<void>((resolve) => {
      w.store.on("catalog", ({ operation, topic, addr, listenerName }) => {
        // What was done before may be told only now.
        if (topic !== "told") return;
        told.push(`${operation} ${addr} ${listenerName}`);
        if (told.length === 7) resolve();
      });
    });
    await register(one, "10.0.0.1:1", "told");
    await register(two, "10.0.0.1:1", "told");
    await w.store.addSubscription(
      two,
      { topic: "told", subscribed: true },
      { addr: "10.0.0.1:1", maxMessageBytes: 2, durable: false },
    );
    await w.operator.query("UPDATE hawser_peer_data.listeners SET addr = '10.0.0.9:1'");
    await w.store.clearAddressesOfTopic({ name: "nobody", sourceTopic: "told" });
    await seen;
    expect(told).toEqual([
      "insert 10.0.0.1:1 one",
      "delete 10.0.0.1:1 one",
      "update 10.0.0.1:1 two",
      "update 10.0.0.1:1 two",
      "delete 10.0.0.1:1 two",
      "update 10.0.0.9:1 two",
      "delete 10.0.0.9:1 two",
    ]);
  });

  it("lets two listeners take over each other's rows at the same time", async () => {
    const topics = Array.from({ length: 20 }, (_, n) => `topic ${n}`);
    for (let round = 0; round < 10; round++) {
      const [mine, yours] = round % 2 === 0 ? [topics, [...topics].reverse()] : [[...topics].reverse(), topics];
      await Promise.all([register(one, "10.0.0.1:1", ...mine!), register(two, "10.0.0.1:1", ...yours!)]);
    }
    const names = new Set(await Promise.all(topics.map(async (topic) => (await addressesOf(topic)).join())));
    expect([...names]).toHaveLength(1);
  });

  it("takes any text for names that Postgres can hold, and none that would break its rules", async () => {
    for (const text of [`o'neil; --`, `"quoted" \\ %s $1`, "Schiff ⚓ 船", "x".repeat(255)]) {
      const lease = await w.take(text);
      await register(lease, "10.0.0.1:1", text);
      expect(await listenersOf(w.store, text)).toMatchObject([{ name: text }]);
      const channelId = await w.store.openChannel({ name: text, sourceTopic: text }, text);
      expect(await w.store.channel(channelId)).toMatchObject({ senderName: text, sourceTopic: text });
      expect(await w.store.topicOfId(await w.store.idOfTopic(text))).toBe(text);
    }
    for (const text of ["", "a:b", "bell\u0007", "x".repeat(256), "nul\0"]) {
      // A refusal ends the session.
      await using other = await openStore({ databaseUrl: `${w.url}?application_name=refused` });
      const taking = other.takeName(text, { waitMs: 0 });
      await expect(taking, JSON.stringify(text)).rejects.toMatchObject({ code: "store_failed" });
      await expect(register(one, "10.0.0.1:1", text)).rejects.toMatchObject({ code: "store_failed" });
    }
    await expect(w.store.openChannel({ name: "a:b", sourceTopic: "c" }, "d")).rejects.toThrow(
      "the argument p_sender_name is \"a:b\", and must not contain ':' or control characters",
    );
  });
});
