/**
 * Topics and who serves them: subscriptions, turns, everybody at once, and the directory.
 */
import { describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";
import { failure } from "./support/errors.js";
import { gate } from "./support/gate.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { TestPeer } from "./support/world.js";

const world = sharedPeerWorld();

/** Peers of one topic, in the order of their addresses, which is the order of turns. */
async function listeners(topic: string, count: number): Promise<TestPeer[]> {
  const peers = await Promise.all(Array.from({ length: count }, (_, n) => world.started(`${topic}-${n}`)));
  return peers.sort((one, other) => (one.address < other.address ? -1 : 1));
}

/** Resolves when the peer is connected to all of them: until then those that are take the turns of the others. */
async function connected(peer: TestPeer, others: readonly TestPeer[]): Promise<void> {
  await Promise.all(others.map(({ name }) => peer.saw("peer_connected", (status) => status.peer === name)));
}

describe("round robin", () => {
  it("gives each listener its turn, beginning with the first address, whether sends are awaited or not", async () => {
    const three = await listeners("many", 3);
    const a = await world.started("a-1");
    const receipts = await Promise.all(Array.from({ length: 50 }, (_, n) => a.send("many", `${n}`)));
    for (let n = 50; n < 100; n++) receipts.push(await a.send("many", `${n}`));
    expect(receipts.map(({ peer }) => peer)).toEqual(receipts.map((_, n) => three[n % 3]?.name));
    await eventually("everything has come", () => three.reduce((sum, { texts }) => sum + texts.length, 0) === 100);
    expect(three.map(({ texts }) => texts)).toEqual(
      [0, 1, 2].map((first) => receipts.map((_, n) => `${n}`).filter((_, n) => n % 3 === first)),
    );
  });

  it("has one counter for each topic", async () => {
    const two = (await listeners("one", 2)) as [TestPeer, TestPeer];
    const [other] = await listeners("other", 2);
    const a = await world.started("a-1");
    expect((await a.send("one", "x")).peer).toBe(two[0].name);
    expect((await a.send("other", "x")).peer).toBe(other?.name);
    await connected(a, two);
    expect((await a.send("one", "x")).peer).toBe(two[1].name);
  });

  it("leaves out a listener that has left, and takes it in again when it is back", async () => {
    const [first, second] = (await listeners("many", 2)) as [TestPeer, TestPeer];
    const a = await world.started("a-1");
    for (const text of ["1", "2"]) await a.send("many", text);
    await first.stop();
    await a.saw("peer_unsubscribed", ({ peer }) => peer === first.name);
    for (let n = 0; n < 6; n++)
      expect(await a.send("many", `${n}`)).toEqual({ outcome: "delivered", peer: second.name });
    const before = a.statuses.all.length;
    await first.record();
    await a.saw("peer_connected", ({ peer }) => peer === first.name, before);
    const peers = new Set<string>();
    for (let n = 0; n < 2; n++) peers.add((await a.send("many", `${n}`)).peer);
    expect(peers).toEqual(new Set([first.name, second.name]));
  });

  it("leaves out a listener that is in the directory and cannot be reached", async () => {
    const b = await world.started("many-1");
    await world.list("many", "ghost");
    const a = await world.started("a-1");
    // Until its dial has failed it may get a message; that one is stored.
    await a.send("many", "x");
    await a.send("many", "x");
    for (let n = 0; n < 4; n++) expect(await a.send("many", "y")).toEqual({ outcome: "delivered", peer: b.name });
  });

  it("stores for the one used last when none can be reached", async () => {
    const two = (await listeners("many", 2)) as [TestPeer, TestPeer];
    const a = await world.started("a-1");
    await a.send("many", "1");
    await connected(a, two);
    await a.send("many", "2");
    await Promise.all(two.map((peer) => peer.stop()));
    await eventually(
      "both are known to be gone",
      async () => !((await a.listenersOf("many", { refresh: true })).length > 0),
    );
    const receipts = [await a.send("many", "1"), await a.send("many", "2")];
    expect(receipts).toEqual([
      { outcome: "stored", peer: two[1].name },
      { outcome: "stored", peer: two[1].name },
    ]);
  });

  it("gives a listener that is at work as much as one that has nothing to do", async () => {
    const held = gate();
    const handlers = { "many-0": () => held.opened, "many-1": () => undefined };
    const two = Object.entries(handlers).map(([name, handler]) => world.started(name, {}, handler));
    const [slow, fast] = (await Promise.all(two)) as [TestPeer, TestPeer];
    const a = await world.started("a-1");
    const sent = Array.from({ length: 20 }, (_, n) => a.send("many", `${n}`));
    await Promise.all([fast.received.length(10), slow.received.length(1)]);
    expect(slow.texts).toHaveLength(1);
    held.open();
    const peers = (await Promise.all(sent)).map(({ peer }) => peer);
    expect(peers.filter((peer) => peer === slow.name)).toHaveLength(10);
    await slow.received.length(10);
    expect(fast.texts).toHaveLength(10);
  });

  it("leaves what is stored for one that is away to it, when another of the topic has come back", async () => {
    const two = (await listeners("many", 2)) as [TestPeer, TestPeer];
    const a = await world.started("a-1");
    await a.send("many", "1");
    await connected(a, two);
    await a.send("many", "2");
    await Promise.all(two.map((peer) => peer.stop()));
    await eventually(
      "both are known to be gone",
      async () => !((await a.listenersOf("many", { refresh: true })).length > 0),
    );
    expect(await a.send("many", "stored")).toEqual({ outcome: "stored", peer: two[1].name });
    const before = a.statuses.all.length;
    await two[0].record();
    await a.saw("peer_connected", ({ peer }) => peer === two[0].name, before);
    expect(await a.send("many", "live")).toMatchObject({ peer: two[0].name });
    await two[0].received.find(({ text }) => text === "live");
    expect((await a.pending()).listeners).toContainEqual(expect.objectContaining({ name: two[1].name, count: 1 }));
    await two[1].record();
    await two[1].received.find(({ text }) => text === "stored");
    expect(two[0].texts).not.toContain("stored");
  });
});

describe("sendAll", () => {
  it("is one send for each listener, with one receipt each, in the order of addresses", async () => {
    const three = await listeners("news", 3);
    const a = await world.started("a-1");
    const receipts = await a.sendAll("news", "hello", { headers: { k: "v" } });
    expect(receipts).toEqual(three.map(({ name }) => ({ outcome: "delivered", peer: name })));
    expect(three.map(({ texts }) => texts)).toEqual([["hello"], ["hello"], ["hello"]]);
    expect(three.map(({ received }) => received.all[0]?.headers)).toEqual(Array(3).fill([["k", "v"]]));
    const sent = await a.sendAll("news", "x", { delivery: "at-most-once" });
    expect(sent.map((receipt) => ("outcome" in receipt ? receipt.outcome : receipt.error))).toEqual(
      Array(3).fill("sent"),
    );
  });

  it("stores for listeners that are away and were met before", async () => {
    const [first, second] = (await listeners("news", 2)) as [TestPeer, TestPeer];
    const a = await world.started("a-1");
    await a.sendAll("news", "1");
    await second.stop();
    await a.saw("peer_unsubscribed", ({ peer }) => peer === second.name);
    expect(await a.sendAll("news", "2")).toEqual([
      { outcome: "delivered", peer: first.name },
      { outcome: "stored", peer: second.name },
    ]);
    await second.record();
    await second.received.length(2);
    expect(second.texts).toEqual(["1", "2"]);
  });

  it("gives an error for the one listener that cannot take it, and receipts for the others", async () => {
    await world.started("news-1", { maxMessageBytes: 100 });
    const [big, a] = await world.running("news-2", "a-1");
    const receipts = await a.sendAll("news", Buffer.alloc(101, 1));
    expect(receipts).toHaveLength(2);
    expect(receipts).toContainEqual({ outcome: "delivered", peer: "news-2" });
    expect(receipts).toContainEqual({ peer: "news-1", error: expect.objectContaining({ code: "invalid_argument" }) });
    expect(big.received.all).toHaveLength(1);
  });
});

describe("subscribe", () => {
  it("before run serves the topic from the start, and over stop and run", async () => {
    const b = world.peer("b-1");
    await b.recordTopic("news");
    await b.record();
    const a = await world.started("a-1");
    expect(await a.send("news", "x")).toEqual({ outcome: "delivered", peer: "b-1" });
    expect(await a.send("b", "y")).toEqual({ outcome: "delivered", peer: "b-1" });
    await b.stop();
    await b.record();
    await eventually("it is live", async () => (await a.send("news", "z")).outcome === "delivered");
    expect(b.received.all.slice(0, 3)).toMatchObject([
      { topic: "news", senderTopic: "a", text: "x" },
      { topic: "b", senderTopic: "a", text: "y" },
      { topic: "news", senderTopic: "a", text: "z" },
    ]);
  });

  it("while running serves the topic at once, and tells senders that know the topic", async () => {
    const [a, b] = await world.running("a-1", "b-1");
    await failure("no_listener", a.send("news", "x"));
    await b.recordTopic("news");
    await b.recordTopic("news");
    expect(await a.send("news", "y")).toEqual({ outcome: "delivered", peer: "b-1" });
    expect(b.texts).toEqual(["y"]);
    expect(await a.saw("peer_subscribed", ({ topic }) => topic === "news")).toMatchObject({ peer: "b-1" });
  });

  it("shares a topic with others: round robin, and each its own source topic", async () => {
    const three = ["x-1", "y-1", "z-1"].map((name) => world.peer(name));
    for (const peer of three) await peer.recordTopic("shared");
    await Promise.all(three.map((peer) => peer.record()));
    const server = await world.started("server-1");
    for (let n = 0; n < 10; n++) {
      for (const own of ["x", "y", "z"]) await server.send(own, `${n}`);
      await server.send("shared", `${n}`);
    }
    await eventually("everything has come", () => three.reduce((sum, { texts }) => sum + texts.length, 0) === 40);
    const counts = three.map(({ received }) => {
      const to = received.all.map((message) => message.topic);
      return {
        own: to.filter((topic) => topic !== "shared").length,
        shared: to.filter((topic) => topic === "shared").length,
      };
    });
    expect(counts.map(({ own }) => own)).toEqual([10, 10, 10]);
    expect(counts.map(({ shared }) => shared).sort()).toEqual([3, 3, 4]);
  });

  it("includes the peer itself in what it sends to the topic, and in replies", async () => {
    // The handler waits for its reply, which its own peer stores as soon as it is busy.
    const a = world.peer("a-1", { tuning: { busyAfterMs: 10 } });
    await a.recordTopic("news");
    await a.record(async (message) => {
      if (Buffer.from(message.payload).toString() === "question")
        expect(await message.reply("self")).toMatchObject({ peer: "a-1" });
    });
    // The only one, too.
    await a.send("news", "question");
    await a.received.length(2);
    expect(a.received.all).toMatchObject([
      { topic: "news", senderTopic: "a", sender: "a-1", text: "question" },
      { topic: "a", text: "self" },
    ]);
    const b = await world.started("b-1");
    await b.recordTopic("news");
    await a.saw("peer_subscribed", ({ peer }) => peer === "b-1");
    const both = new Set(["a-1", "b-1"]);
    expect(new Set((await a.sendAll("news", "x")).map(({ peer }) => peer))).toEqual(both);
    const peers = [await a.send("news", "1"), await a.send("news", "2")].map(({ peer }) => peer);
    expect(new Set(peers)).toEqual(both);
  });
});

describe("unsubscribe", () => {
  it("takes away one listener's topic and no other's; after the last, senders are refused with no_listener", async () => {
    const [a, b, c] = await world.running("a-1", "b-1", "c-1");
    await b.recordTopic("news");
    await c.recordTopic("news");
    await a.sendAll("news", "1");
    await b.leave("news");
    await a.saw("peer_unsubscribed", ({ peer, topic }) => peer === "b-1" && topic === "news");
    for (let n = 0; n < 3; n++) expect((await a.send("news", "2")).peer).toBe("c-1");
    expect(a.statuses.all.filter(({ kind }) => kind === "sender_route_lost")).toEqual([]);
    await c.leave("news");
    expect(await a.saw("sender_route_lost")).toMatchObject({ topic: "news", peer: "c-1" });
    await failure("no_listener", a.send("news", "3"));
    await failure("no_listener", a.send("news", "3", { delivery: "at-most-once" }));
    // The source topic is another matter.
    expect((await a.send("b", "4")).outcome).toBe("delivered");
    expect([b.texts, c.texts]).toEqual([
      ["1", "4"],
      ["1", "2", "2", "2"],
    ]);
  });

  it("lets what still comes for the topic wait for another listener of it", async () => {
    const [a, b] = await world.running("a-1", "b-1");
    await b.recordTopic("news");
    await a.send("news", "1");
    await a.send("b", "2");
    await b.stop();
    expect((await a.send("news", "late", { headers: { k: "v" } })).outcome).toBe("stored");
    expect((await a.send("b", "behind it")).outcome).toBe("stored");
    await b.leave("news");
    await b.record();
    await b.received.find(({ text }) => text === "behind it");
    expect(b.texts).toEqual(["1", "2", "behind it"]);
    await eventually("it waits alone", async () => (await world.storedMessages()) === 1);
    const c = await world.started("c-1");
    await c.recordTopic("news");
    await c.received.length(1);
    expect(c.received.all).toMatchObject([
      {
        topic: "news",
        text: "late",
        sender: "a-1",
        enqueuedBy: undefined,
        headers: expect.arrayContaining([["k", "v"]]),
      },
    ]);
    await world.handled();
    expect(await world.deadLetters(0)).toEqual([]);
  });

  it("leaves no route behind at a sender that looked the topic up meanwhile", async () => {
    const [a, b] = await world.running("a-1", "b-1");
    await b.recordTopic("news");
    // The sender has read the directory, and waits for its routes.
    await world.query("BEGIN");
    await world.query("LOCK TABLE hawser_peer_data.routes IN ACCESS EXCLUSIVE MODE");
    const sent = Promise.allSettled([a.send("news", "1")]);
    const waiting =
      "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    await eventually("the sender waits", async () => (await rowsOf(world.url, waiting)).length > 0);
    const unsubscribing = b.leave("news");
    const leaving = `${waiting} AND query LIKE '%leave_directory%'`;
    await eventually("the listener waits, too", async () => (await rowsOf(world.url, leaving)).length === 1);
    await world.query("COMMIT");
    await Promise.all([sent, unsubscribing]);
    expect(await world.query("SELECT * FROM hawser_peer_data.routes WHERE listener_topic = 'news'")).toEqual([]);
    await eventually("the sender knows", async () => !((await a.listenersOf("news", { refresh: true })).length > 0));
    await failure("no_listener", a.send("news", "2"));
  });

  it("works on a topic that only a predecessor of the name subscribed", async () => {
    const b = await world.started("b-1", { defaults: { durable: true } });
    await b.recordTopic("news");
    const a = await world.started("a-1");
    await a.send("news", "1");
    await b.stop();
    const successor = world.peer("b-1");
    await successor.recordTopic("news");
    await successor.leave("news");
    await successor.record();
    await eventually("nobody serves it", async () => !((await a.listenersOf("news", { refresh: true })).length > 0));
    await failure("no_listener", a.send("news", "2"));
  });
});
