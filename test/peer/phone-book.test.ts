/**
 * Whose comings and goings a peer hears of: those of topics that it has sent to, refreshed or subscribed.
 */
import { describe, expect, it } from "vitest";
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
    await failure("no_address", a.sendTo("sent", "x"));
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
    await failure("no_address", again.sendTo("news", "3"));
    expect(await again.sendTo("b", "3")).toEqual({ outcome: "stored", peer: "b-1" });
  });
});
