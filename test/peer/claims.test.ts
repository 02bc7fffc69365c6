/**
 * Groups: members claim what is enqueued as they have room.
 */
import { expect, it } from "vitest";
import type { Handler, PeerOptions } from "../../src/peer/index.js";
import { eventually } from "../support/eventually.js";
import { gate } from "./support/gate.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { TestPeer } from "./support/world.js";

const world = sharedPeerWorld();

const member = (name: string, options: Partial<PeerOptions> = {}, handler?: Handler): Promise<TestPeer> =>
  world.started(name, { group: true, concurrency: 1, ...options }, handler);

const numbers = (from: number, to: number): string[] => Array.from({ length: to - from + 1 }, (_, n) => `${from + n}`);

async function enqueue(texts: readonly string[], key: string | null = null): Promise<void> {
  await world.query("SELECT hawser.peer_enqueue_text_batch('b', $1, key => $2)", [texts, key]);
}

it("a slow member holds the message in its handler and the next one, and the others have the rest", async () => {
  const held = gate();
  const slow = await member("b-1", {}, () => held.opened);
  await enqueue(["0"]);
  await slow.received.length(1);
  const fast = await member("b-2");
  await enqueue(numbers(1, 399));
  await eventually("the fast one has nearly all", () => fast.texts.length >= 398);
  held.open();
  await eventually("all are handled", () => fast.texts.length + slow.texts.length === 400);
  expect(slow.texts.length).toBeLessThanOrEqual(2);
  expect(new Set([...fast.texts, ...slow.texts]).size).toBe(400);
});

it("a key of which a message is parked stays with its member, also for what is enqueued later", async () => {
  const options = { retryDelayMs: 3_600_000, maxAttempts: 2 };
  const one = await member("b-1", options, () => {
    throw new Error("later");
  });
  await enqueue(["first"], "k");
  const parked = () => world.query<{ attempts: number }>("SELECT attempts FROM hawser.parked_messages ORDER BY number");
  await eventually("the first is parked", async () => (await parked()).length === 1);
  const other = await member("b-2", options);
  await enqueue(["second"], "k");
  await enqueue(["free"], "f");
  await eventually("the other key is handled by either", () => [...one.texts, ...other.texts].includes("free"));
  await eventually("the second is parked behind the first", async () => (await parked()).length >= 2);
  expect(other.texts).not.toContain("second");
});
