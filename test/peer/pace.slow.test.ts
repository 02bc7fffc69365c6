/**
 * Senders that are faster than their listener.
 */
import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { TestPeer } from "./support/world.js";

const world = sharedPeerWorld();

const window = 500;

/** Sends without a pause, `window` unconfirmed at once, until `enough`. */
async function flood(from: TestPeer, topic: string, enough: () => boolean): Promise<number> {
  let sent = 0;
  const one = async (): Promise<void> => {
    while (!enough()) await from.send(topic, `${++sent}`);
  };
  await Promise.all(Array.from({ length: window }, one));
  return sent;
}

/**
 * Limit for stored messages of a listener that takes some; a sender without a brake would store many more meanwhile.
 */
const heap = 10_000;

it("store no faster than a busy listener drains", async () => {
  const a = await world.started("a-1");
  // Longer than busyAfterMs: its senders store at once instead of waiting for it.
  const b = await world.started("b-1", { tuning: { busyAfterMs: 10 } }, () => delay(15));
  await flood(a, "b", () => b.received.all.length >= 100);
  expect(await world.storedMessages()).toBeLessThan(heap);
});

it("store no faster than a listener drains that has come back", async () => {
  const [a, b] = await world.left("hello");
  const early = Array.from({ length: 3_000 }, (_, n) => a.send("b", `early ${n}`));
  await Promise.all(early);
  await b.record(() => delay(1));
  await b.received.length(2);
  await flood(a, "b", () => b.received.all.length >= 1_000);
  expect(await world.storedMessages()).toBeLessThan(early.length + heap);
});

it("wait for the credit of a live listener, within their queue's limits", async () => {
  const a = await world.started("a-1", { tuning: { maxSendQueueMessages: window } });
  // It stays live, however slow the machine makes its handlers: they are waited for.
  const b = await world.started("b-1", { tuning: { creditBytes: 1_024 } }, () => delay(1));
  await a.send("b", "begin");
  const sent = await flood(a, "b", () => b.received.all.length >= 1_000);
  await b.received.length(sent + 1);
  expect(b.texts).toEqual(["begin", ...Array.from({ length: sent }, (_, n) => `${n + 1}`)]);
  expect(a.statuses.all.map(({ kind }) => kind)).not.toContain("sender_busy");
});
