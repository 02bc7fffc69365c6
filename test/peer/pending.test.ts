/**
 * Messages that a sender has stored for others: counted, listed, cleared.
 */
import pg from "pg";
import { expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { failure } from "./support/errors.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import { peerWorld } from "./support/world.js";

const world = sharedPeerWorld();

it("pending counts what this sender has stored, in all and for each listener and topic, running or not", async () => {
  const [a, other, b, c] = await world.running("a-1", "other-1", "b-1", "c-1");
  await b.recordTopic("news");
  for (const topic of ["b", "c", "news"]) await a.send(topic, "hello");
  await other.send("b", "hello");
  const addresses = { b: b.localAddress, c: c.localAddress };
  expect((await a.pending()).count).toBe(0);
  await b.stop();
  for (const topic of ["b", "b", "news"]) await a.send(topic, "x");
  await other.send("b", "not a's");
  const expected = [
    { address: addresses.b, topic: "b", name: "b-1", count: 2 },
    { address: addresses.c, topic: "c", name: "c-1", count: 0 },
    { address: addresses.b, topic: "news", name: "b-1", count: 1 },
  ];
  expect((await a.pending()).count).toBe(3);
  expect((await a.pending()).listeners).toEqual(expected);
  await a.stop();
  expect((await a.pending()).count).toBe(3);
  expect((await a.pending()).listeners).toEqual(expected);
  // A peer of the same name that has never run.
  const fresh = world.peer("a-1");
  expect((await fresh.pending()).count).toBe(3);
  await b.record();
  await eventually("the listener has taken them", async () => (await fresh.pending()).count === 0);
  expect((await fresh.pending()).listeners.map(({ count }) => count)).toEqual([0, 0, 0]);
});

it("pending is empty for a sender that has met nobody, on an empty database too", async () => {
  await using world = await peerWorld({ migrated: false });
  const a = world.peer("a-1");
  expect((await a.pending()).count).toBe(0);
  expect((await a.pending()).listeners).toEqual([]);
});

it("what a sender has stored is cleared by clearStored with the routes, only while not running, and nobody else's is", async () => {
  const [a, other, b] = await world.running("a-1", "other-1", "b-1");
  await a.send("b", "1");
  await other.send("b", "1");
  await b.stop();
  await a.send("b", "2");
  await other.send("b", "2");
  const error = await failure("clear_while_running", a.clearStored());
  expect(error.message).toContain('"a-1"');
  await a.stop();
  await a.clearStored();
  expect((await a.pending()).count).toBe(0);
  expect((await a.pending()).listeners).toEqual([]);
  expect((await other.pending()).count).toBe(1);
  // The route is gone: as if they had never met.
  await a.record();
  await failure("no_listener", a.send("b", "3"));
  await b.record();
  await b.received.length(3);
  expect(b.received.all.map(({ sender, text }) => `${sender} ${text}`).sort()).toEqual([
    "a-1 1",
    "other-1 1",
    "other-1 2",
  ]);
});

it("what a sender has stored is not cleared by a peer that does not run while another one of its name does", async () => {
  const [a, b] = await world.running("a-1", "b-1");
  await a.send("b", "1");
  await b.stop();
  await a.send("b", "2");
  const twin = world.peer("a-1");
  const before = await world.query("SELECT epoch FROM hawser_peer_data.peers WHERE name = 'a-1'");
  for (const clear of [() => twin.clearStored(), () => twin.clearAddresses()]) {
    const error = await failure("name_in_use", clear());
    expect(error.message).toBe('"a-1" is running; stop it first');
  }
  expect(await world.query("SELECT epoch FROM hawser_peer_data.peers WHERE name = 'a-1'")).toEqual(before);
  expect((await a.pending()).count).toBe(1);
  expect(await a.listenersOf("a")).toHaveLength(1);
  await b.record();
  await b.received.find(({ text }) => text === "2");
  await a.stop();
  await twin.clearStored();
  await twin.clearAddresses();
  expect((await twin.pending()).listeners).toEqual([]);
});

it("pending keeps what was stored before a start failed", async () => {
  const [a] = await world.left("1");
  await a.send("b", "2");
  await a.stop();
  const twin = world.peer("a-1", { listen: "no-such-host.invalid:0" });
  await failure("bind_failed", twin.start());
  expect((await twin.pending()).count).toBe(1);
});

it("what a peer has enqueued is not among what it has stored, and is not cleared with it", async () => {
  const a = await world.started("a-1");
  const client = new pg.Client({ connectionString: world.url });
  await client.connect();
  await a.enqueue(client, "b", "hello");
  await client.end();
  expect(await a.pending()).toEqual({ count: 0, listeners: [] });
  await a.stop();
  await a.clearStored();
  const b = await world.started("b-1");
  await b.received.length(1);
});
