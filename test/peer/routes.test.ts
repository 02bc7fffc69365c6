/**
 * What a sender remembers of the listeners it has met: one route for each listener and topic.
 */
import { expect, it } from "vitest";
import { failure } from "./support/errors.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

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
