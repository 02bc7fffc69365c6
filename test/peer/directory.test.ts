/**
 * Whose comings and goings a peer hears of: those of topics that it has sent to, refreshed or subscribed.
 */
import { describe, expect, it } from "vitest";
import { atDepth } from "../support/depth.js";
import { eventually } from "../support/eventually.js";
import { failure } from "./support/errors.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { TestPeer } from "./support/world.js";

const world = sharedPeerWorld();

describe("a peer that subscribes, sends or refreshes", () => {
  /** Who came (+) and went (-), in order. */
  const comings = (peer: TestPeer): string[] =>
    peer.statuses.all.flatMap((status) => {
      if (status.kind === "peer_subscribed") return [`+${status.peer} ${status.topic}`];
      return status.kind === "peer_unsubscribed" ? [`-${status.peer} ${status.topic}`] : [];
    });

  it("are those of topics it has sent to, refreshed or subscribed, and of no others", async () => {
    const a = world.peer("a-1");
    await a.subscribe("before");
    await a.record();
    await a.subscribe("after");
    await failure("no_listener", a.sendTo("sent", "x"));
    await world.started("known-1");
    expect(await a.refreshAddressTopic("known")).toBe(true);

    const b = await world.started("b-1");
    for (const topic of ["unknown", "before", "after", "sent", "known"]) {
      await b.subscribe(topic);
      if (topic !== "unknown") await a.saw("peer_subscribed", (status) => status.topic === topic);
    }
    for (const topic of ["unknown", "before", "after", "sent", "known"]) {
      await b.unsubscribe(topic);
      if (topic !== "unknown") await a.saw("peer_unsubscribed", (status) => status.topic === topic);
    }
    const known = ["before", "after", "sent", "known"];
    expect(comings(a)).toEqual([...known.map((topic) => `+b-1 ${topic}`), ...known.map((topic) => `-b-1 ${topic}`)]);
  });

  it("makes no routes by subscribing: they come with the first send", async () => {
    const [a, b] = [world.peer("a-1"), world.peer("b-1")];
    for (const peer of [a, b]) {
      await peer.subscribe("news");
      await peer.record();
    }
    await a.saw("peer_subscribed", ({ peer }) => peer === "b-1");
    expect(await a.pendingByPeer()).toEqual([]);
    expect(a.statuses.all.filter(({ kind }) => kind === "peer_connected")).toEqual([]);
    const receipts = await a.sendAll("news", "x");
    expect(receipts.map(({ peer }) => peer).sort()).toEqual(["a-1", "b-1"]);
    expect((await a.pendingByPeer()).map(({ name }) => name).sort()).toEqual(["a-1", "b-1"]);
    await b.stop();
    await a.saw("peer_unsubscribed", ({ peer }) => peer === "b-1");
    const after = await a.sendAll("news", "y");
    expect(after).toContainEqual({ outcome: "stored", peer: "b-1" });
  });

  it("ends when it unsubscribes itself", async () => {
    const a = await world.started("a-1");
    await a.subscribe("news");
    await a.unsubscribe("news");
    await a.subscribe("other");
    const b = await world.started("b-1");
    await b.subscribe("news");
    await b.subscribe("other");
    await a.saw("peer_subscribed", ({ topic }) => topic === "other");
    expect(comings(a)).toEqual(["+b-1 other"]);
  });
});

describe("the routes of a sender", () => {
  it("are kept to the other listeners of a topic when one unsubscribes: messages are stored for those", async () => {
    const [a, b, c] = await world.running("a-1", "b-1", "c-1");
    for (const peer of [b, c]) await peer.subscribe("news");
    await a.sendAll("news", "1");
    await b.unsubscribe("news");
    await c.stop();
    await a.stop();
    expect(await world.query("SELECT client_name FROM hawser.sender_listener WHERE listener_topic = 'news'")).toEqual([
      { client_name: "c-1" },
    ]);
    // Also in the next process of the sender's name.
    const again = await world.started("a-1");
    expect(await again.sendAll("news", "2")).toEqual([{ outcome: "stored", peer: "c-1" }]);
    await c.record();
    await c.received.length(2);
    expect(c.texts).toEqual(["1", "2"]);
    expect(b.texts).toEqual(["1"]);
  });

  it("are kept for each topic of a listener that serves two at one address", async () => {
    const [a, b] = await world.running("a-1", "b-1");
    await b.subscribe("news");
    for (const topic of ["b", "news"]) await a.sendTo(topic, "1");
    await b.stop();
    await a.stop();
    const again = await world.started("a-1");
    for (const topic of ["b", "news"]) {
      expect(await again.sendTo(topic, "2")).toEqual({ outcome: "stored", peer: "b-1" });
    }
    expect((await again.pendingByPeer()).map(({ topic, name, count }) => ({ topic, name, count }))).toEqual([
      { topic: "b", name: "b-1", count: 1 },
      { topic: "news", name: "b-1", count: 1 },
    ]);
    await b.record();
    await b.received.length(4);
    expect(b.received.all.map(({ to, text }) => `${to} ${text}`)).toEqual(["b 1", "news 1", "b 2", "news 2"]);
    // Unsubscribed, the one is forgotten and the other is not.
    await b.unsubscribe("news");
    await b.stop();
    expect(await again.refreshAddressTopic("news")).toBe(false);
    await failure("no_listener", again.sendTo("news", "3"));
    expect(await again.sendTo("b", "3")).toEqual({ outcome: "stored", peer: "b-1" });
  });
});

describe("the directory", () => {
  it("is listed in the order of addresses, and says whether a topic has one, before run too", async () => {
    const two = await world.running("many-1", "many-2");
    const listed = two.map(({ publishedAddress, name }) => ({ address: publishedAddress, name }));
    listed.sort((one, other) => (one.address < other.address ? -1 : 1));
    const a = world.peer("a-1");
    for (const start of [async () => undefined, () => a.run()]) {
      await start();
      expect(await a.listAddresses("many")).toEqual(listed);
      expect(await a.refreshAddressTopic("many")).toBe(true);
      expect(await a.listAddresses("nobody")).toEqual([]);
      expect(await a.refreshAddressTopic("nobody")).toBe(false);
    }
    await Promise.all(two.map((peer) => peer.stop()));
    expect(await a.refreshAddressTopic("many")).toBe(false);
    // Who was refreshed while there is as good as met.
    expect((await a.sendTo("many", "x")).outcome).toBe("stored");
  });

  it("has its listeners remembered as met also while it changes", async () => {
    const a = await world.started("a-1");
    for (let round = 0; round < atDepth(20); round++) {
      const topic = `b${round}`;
      const b = await world.started(`${topic}-1`);
      let changing = true;
      const changes = (async () => {
        while (changing)
          await world.query("UPDATE hawser.topic_addr SET registered_at = now() WHERE topic = $1", [topic]);
      })();
      await a.sendTo(topic, "1");
      await b.stop();
      changing = false;
      await changes;
      expect(await a.sendTo(topic, "2")).toEqual({ outcome: "stored", peer: b.name });
    }
  });

  it("loses a row (topic, address) of another name to the listener that registers there", async () => {
    const b = await world.started("b-1");
    const address = b.boundListenAddress;
    await b.stop();
    await world.list("b", "old", { addr: address });
    await world.started("b-1", { listen: address });
    expect(await b.listAddresses("b")).toEqual([{ address, name: "b-1" }]);
  });

  it("is emptied of a source topic's listeners by clearAddressesOfTopic, only while not running", async () => {
    const left = await world.started("many-1", { durable: true });
    await left.stop();
    const other = world.peer("many-2");
    expect(await other.listAddresses("many")).toHaveLength(1);
    await other.clearAddressesOfTopic();
    expect(await other.listAddresses("many")).toEqual([]);
    await other.run();
    await failure("clear_while_running", other.clearAddressesOfTopic());
    expect(await other.listAddresses("many")).toMatchObject([{ name: "many-2" }]);
  });

  it("has a live listener again after its rows were cleared", async () => {
    const [b, a] = await world.running("many-1", "a-1");
    await a.sendTo("many", "1");
    await world.peer("many-2").clearAddressesOfTopic();
    await eventually("it has registered again", async () => (await a.listAddresses("many")).length === 1);
    expect((await a.sendTo("many", "2")).outcome).toMatch(/delivered|stored/);
    await b.received.length(2);
  });
});
