/**
 * What a sender has stored for others: counted, listed, cleared.
 */
import { expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { failure } from "./support/errors.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import { peerWorld } from "./support/world.js";

const world = sharedPeerWorld();

it("counts what this sender has stored, in all and for each listener and topic, running or not", async () => {
  const [a, other, b, c] = await world.running("a-1", "other-1", "b-1", "c-1");
  await b.subscribe("news");
  for (const topic of ["b", "c", "news"]) await a.sendTo(topic, "hello");
  await other.sendTo("b", "hello");
  const addresses = { b: b.boundListenAddress, c: c.boundListenAddress };
  expect(await a.pendingCount()).toBe(0);
  await b.stop();
  for (const topic of ["b", "b", "news"]) await a.sendTo(topic, "x");
  await other.sendTo("b", "not a's");
  const expected = [
    { address: addresses.b, topic: "b", name: "b-1", count: 2 },
    { address: addresses.c, topic: "c", name: "c-1", count: 0 },
    { address: addresses.b, topic: "news", name: "b-1", count: 1 },
  ];
  expect(await a.pendingCount()).toBe(3);
  expect(await a.pendingByPeer()).toEqual(expected);
  await a.stop();
  expect(await a.pendingCount()).toBe(3);
  expect(await a.pendingByPeer()).toEqual(expected);
  // A peer of the same name that has never run.
  const fresh = world.peer("a-1");
  expect(await fresh.pendingCount()).toBe(3);
  await b.record();
  await eventually("the listener has taken them", async () => (await fresh.pendingCount()) === 0);
  expect((await fresh.pendingByPeer()).map(({ count }) => count)).toEqual([0, 0, 0]);
});

it("is empty for a sender that has met nobody, on an empty database too", async () => {
  await using world = await peerWorld({ migrated: false });
  const a = world.peer("a-1");
  expect(await a.pendingCount()).toBe(0);
  expect(await a.pendingByPeer()).toEqual([]);
});

it("tells two source topics of one name apart", async () => {
  const b = await world.started("b-1");
  const first = await world.started("a-1", { topic: "first" });
  await first.sendTo("b", "1");
  await b.stop();
  await first.sendTo("b", "2");
  await first.stop();
  const second = world.peer("a-1", { topic: "second" });
  expect(await second.pendingCount()).toBe(0);
  expect(await first.pendingCount()).toBe(1);
});

it("is cleared by clearStoredMessages with the routes, only while not running, and nobody else's is", async () => {
  const [a, other, b] = await world.running("a-1", "other-1", "b-1");
  await a.sendTo("b", "1");
  await other.sendTo("b", "1");
  await b.stop();
  await a.sendTo("b", "2");
  await other.sendTo("b", "2");
  const error = await failure("clear_while_running", a.clearStoredMessages());
  expect(error.message).toContain('"a-1"');
  await a.stop();
  await a.clearStoredMessages();
  expect(await a.pendingCount()).toBe(0);
  expect(await a.pendingByPeer()).toEqual([]);
  expect(await other.pendingCount()).toBe(1);
  // The route is gone: as if they had never met.
  await a.record();
  await failure("no_listener", a.sendTo("b", "3"));
  await b.record();
  await b.received.length(3);
  expect(b.received.all.map(({ sender, text }) => `${sender} ${text}`).sort()).toEqual([
    "a-1 1",
    "other-1 1",
    "other-1 2",
  ]);
});

it("is not cleared by a peer that does not run while another one of its name does", async () => {
  const [a, b] = await world.running("a-1", "b-1");
  await a.sendTo("b", "1");
  await b.stop();
  await a.sendTo("b", "2");
  const twin = world.peer("a-1");
  const before = await world.query("SELECT epoch FROM hawser.peers WHERE name = 'a-1'");
  for (const clear of [() => twin.clearStoredMessages(), () => twin.clearAddressesOfTopic()]) {
    const error = await failure("name_in_use", clear());
    expect(error.message).toBe('"a-1" is running; stop it first');
  }
  expect(await world.query("SELECT epoch FROM hawser.peers WHERE name = 'a-1'")).toEqual(before);
  expect(await a.pendingCount()).toBe(1);
  expect(await a.listAddresses("a")).toHaveLength(1);
  await b.record();
  await b.received.find(({ text }) => text === "2");
  await a.stop();
  await twin.clearStoredMessages();
  await twin.clearAddressesOfTopic();
  expect(await twin.pendingByPeer()).toEqual([]);
});

it("leaves epochs and cursors when it is cleared, so that what follows is neither lost nor doubled", async () => {
  const [a, b] = await world.running("a-1", "b-1");
  for (const text of ["1", "2", "3"]) await a.sendTo("b", text);
  const before = await world.query("SELECT connection_key, v, epoch FROM hawser.conn_mess_number");
  await a.stop();
  await a.clearStoredMessages();
  await a.clearAddressesOfTopic();
  expect(await world.query("SELECT connection_key, v, epoch FROM hawser.conn_mess_number")).toEqual(before);
  await a.record();
  for (const text of ["4", "5"]) await a.sendTo("b", text);
  await b.received.length(5);
  expect(b.texts).toEqual(["1", "2", "3", "4", "5"]);
});

it("keeps what was stored before a start failed", async () => {
  const [a] = await world.left("1");
  await a.sendTo("b", "2");
  await a.stop();
  const twin = world.peer("a-1", { listen: "no-such-host.invalid:0" });
  await failure("bind_failed", twin.run());
  expect(await twin.pendingCount()).toBe(1);
});
