/**
 * Subscribing and unsubscribing, with sender and listener in processes of their own.
 */
import { expect, it } from "vitest";
import { rowsOf } from "../support/on-server.js";
import { ownDatabase, textsOf } from "./support/own-database.js";
import { peerProcess, runningPeer } from "./support/peer-process.js";

it("a topic that a killed process subscribed and its successor unsubscribed has no address, and nothing more arrives", async () => {
  const url = await ownDatabase();
  const a = await runningPeer(url, "a-1");
  const b = peerProcess(url, "b-1", { handler: "reply" });
  await b.call("subscribe", "news");
  await b.call("run");
  await a.call("sendTo", "news", "one");
  await a.messages.length(1);
  await b.crash();
  const successor = await runningPeer(url, "b-1", { handler: "reply" });
  await successor.call("unsubscribe", "news");
  expect(await a.call("refreshAddressTopic", "news")).toBe(false);
  await expect(a.call("sendTo", "news", "two")).rejects.toMatchObject({ code: "no_address" });
  // Also for a sender that begins anew, and remembers whom it has met.
  await a.finish();
  const again = await runningPeer(url, "a-1");
  await expect(again.call("sendTo", "news", "three")).rejects.toMatchObject({ code: "no_address" });
  await again.call("sendTo", "b", "marker");
  await again.messages.length(1);
  expect(textsOf(again)).toEqual(["re marker"]);
  expect(textsOf(successor)).toEqual(["marker"]);
});

it("a topic that is unsubscribed while running has no address at once, and nothing more arrives", async () => {
  const url = await ownDatabase();
  const [a, b] = await Promise.all([runningPeer(url, "a-1"), runningPeer(url, "b-1")]);
  await b.call("subscribe", "news");
  expect((await a.call("sendTo", "news", "one")).outcome).toMatch(/delivered|stored/);
  await b.messages.length(1);
  await b.call("unsubscribe", "news");
  await a.statuses.find((status) => status.kind === "sender_route_lost" && status.topic === "news");
  for (const delivery of ["at-least-once", "at-most-once"] as const) {
    await expect(a.call("sendTo", "news", "two", delivery)).rejects.toMatchObject({ code: "no_address" });
  }
  await a.call("sendTo", "b", "marker");
  await b.messages.length(2);
  expect(textsOf(b)).toEqual(["one", "marker"]);
});

it("a topic that is subscribed and unsubscribed 30 times while messages flow loses nothing that was confirmed", async () => {
  const url = await ownDatabase();
  const [a, b] = await Promise.all([runningPeer(url, "a-1"), runningPeer(url, "b-1")]);
  await a.call("beginStream", { topic: "news", prefix: "x", window: 50, perSecond: 500 });
  for (let round = 0; round < 30; round++) {
    const [taken, refused] = [a.confirmed.all.length, a.unconfirmed.all.length];
    await b.call("subscribe", "news");
    await a.confirmed.length(taken + 20);
    await a.call("hurryStream", 40);
    await b.call("unsubscribe", "news");
    await a.unconfirmed.length(refused + 20);
  }
  await b.call("subscribe", "news");
  await a.confirmed.length(a.confirmed.all.length + 20);
  await a.call("endStream");
  await a.call("sendTo", "b", "marker");
  await b.messages.find(({ text }) => text === "marker");

  expect(new Set(a.unconfirmed.all.map(({ failure }) => failure.code))).toEqual(new Set(["no_address"]));
  const handled = textsOf(b).filter((text) => text !== "marker");
  const dead = (
    await rowsOf(url, "SELECT convert_from(payload, 'UTF8') AS text, error_code FROM hawser.dead_letters")
  ).map((row) => row as { text: string; error_code: string });
  expect(new Set(dead.map(({ error_code }) => error_code)).size).toBeLessThanOrEqual(1);
  expect(dead.every(({ error_code }) => error_code === "unsubscribed")).toBe(true);
  const found = [...handled, ...dead.map(({ text }) => text)];
  expect(new Set(found).size, "nothing is twice").toBe(found.length);
  const confirmed = a.confirmed.all.map(({ number }) => `x ${number}`);
  expect(confirmed.filter((text) => !found.includes(text))).toEqual([]);
  const order = handled.map((text) => Number(text.slice(2)));
  expect(order).toEqual([...order].sort((one, other) => one - other));
  console.log(`${confirmed.length} confirmed: ${handled.length} handled, ${dead.length} dead letters`);
});
