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

describe("peer_subscribed and peer_unsubscribed", () => {
  /** Who came (+) and went (-), in order. */
  const comings = (peer: TestPeer): string[] =>
    peer.statuses.all.flatMap((status) => {
      if (status.kind === "peer_subscribed") return [`+${status.peer} ${status.topic}`];
      return status.kind === "peer_unsubscribed" ? [`-${status.peer} ${status.topic}`] : [];
    });

  it("are told for topics that the peer has sent to, refreshed or subscribed, and for no others", async () => {
    const a = world.peer("a-1");
    await a.recordTopic("before");
    await a.record();
    await a.recordTopic("after");
    await failure("no_listener", a.send("sent", "x"));
    await world.started("known-1");
    expect((await a.listenersOf("known", { refresh: true })).length > 0).toBe(true);

    const b = await world.started("b-1");
    for (const topic of ["unknown", "before", "after", "sent", "known"]) {
      await b.recordTopic(topic);
      if (topic !== "unknown") await a.saw("peer_subscribed", (status) => status.topic === topic);
    }
    for (const topic of ["unknown", "before", "after", "sent", "known"]) {
      await b.leave(topic);
      if (topic !== "unknown") await a.saw("peer_unsubscribed", (status) => status.topic === topic);
    }
    const known = ["before", "after", "sent", "known"];
    expect(comings(a)).toEqual([...known.map((topic) => `+b-1 ${topic}`), ...known.map((topic) => `-b-1 ${topic}`)]);
  });

  it("are told without routes, which come with the first send", async () => {
    const [a, b] = [world.peer("a-1"), world.peer("b-1")];
    for (const peer of [a, b]) {
      await peer.recordTopic("news");
      await peer.record();
      // The read that begins with the subscription has ended: of whom that finds, nothing is told.
      await peer.listenersOf("news");
    }
    await a.saw("peer_subscribed", ({ peer }) => peer === "b-1");
    expect((await a.pending()).listeners).toEqual([]);
    expect(a.statuses.all.filter(({ kind }) => kind === "peer_connected")).toEqual([]);
    const receipts = await a.sendAll("news", "x");
    expect(receipts.map(({ peer }) => peer).sort()).toEqual(["a-1", "b-1"]);
    expect((await a.pending()).listeners.map(({ name }) => name).sort()).toEqual(["a-1", "b-1"]);
    await b.stop();
    await a.saw("peer_unsubscribed", ({ peer }) => peer === "b-1");
    const after = await a.sendAll("news", "y");
    expect(after).toContainEqual({ outcome: "stored", peer: "b-1" });
  });

  it("are no longer told for a topic that the peer has unsubscribed", async () => {
    const a = await world.started("a-1");
    await a.recordTopic("news");
    await a.leave("news");
    await a.recordTopic("other");
    await a.listenersOf("other");
    const b = await world.started("b-1");
    await b.recordTopic("news");
    await b.recordTopic("other");
    await a.saw("peer_subscribed", ({ topic }) => topic === "other");
    expect(comings(a)).toEqual(["+b-1 other"]);
  });
});

describe("the directory", () => {
  it("is listed in the order of addresses, and says whether a topic has one, before start too", async () => {
    const two = await world.running("many-1", "many-2");
    const listed = two.map(({ address, name }) => ({ address, name }));
    listed.sort((one, other) => (one.address < other.address ? -1 : 1));
    const a = world.peer("a-1");
    for (const start of [async () => undefined, () => a.start()]) {
      await start();
      expect(await a.listenersOf("many")).toEqual(listed);
      expect((await a.listenersOf("many", { refresh: true })).length > 0).toBe(true);
      expect(await a.listenersOf("nobody")).toEqual([]);
      expect((await a.listenersOf("nobody", { refresh: true })).length > 0).toBe(false);
    }
    await Promise.all(two.map((peer) => peer.stop()));
    expect((await a.listenersOf("many", { refresh: true })).length > 0).toBe(false);
    // Who was refreshed while there is as good as met.
    expect((await a.send("many", "x")).outcome).toBe("stored");
  });

  it("has its listeners remembered as met also while it changes", async () => {
    const a = await world.started("a-1");
    for (let round = 0; round < atDepth(20); round++) {
      const topic = `b${round}`;
      const b = await world.started(`${topic}-1`);
      let changing = true;
      const changes = (async () => {
        while (changing)
          await world.query("UPDATE hawser_peer_data.listeners SET registered_at = now() WHERE topic = $1", [topic]);
      })();
      await a.send(topic, "1");
      await b.stop();
      changing = false;
      await changes;
      expect(await a.send(topic, "2")).toEqual({ outcome: "stored", peer: b.name });
    }
  });

  it("is emptied of a source topic's listeners by clearAddresses, only while not running", async () => {
    const left = await world.started("many-1", { defaults: { durable: true } });
    await left.stop();
    const other = world.peer("many-2");
    expect(await other.listenersOf("many")).toHaveLength(1);
    await other.clearAddresses();
    expect(await other.listenersOf("many")).toEqual([]);
    await other.record();
    await failure("clear_while_running", other.clearAddresses());
    expect(await other.listenersOf("many")).toMatchObject([{ name: "many-2" }]);
  });

  it("has a live listener again after its rows were cleared", async () => {
    const [b, a] = await world.running("many-1", "a-1");
    await a.send("many", "1");
    await world.peer("many-2").clearAddresses();
    await eventually("it has registered again", async () => (await a.listenersOf("many")).length === 1);
    expect((await a.send("many", "2")).outcome).toMatch(/delivered|stored/);
    await b.received.length(2);
  });
});
