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
  const held = gate();
  const one = await member("b-1", options, async ({ key }) => {
    if (key === undefined) await held.opened;
    else throw new Error("later");
  });
  await enqueue(["first"], "k");
  const parked = async (): Promise<number> => (await world.query("SELECT FROM hawser.parked_messages")).length;
  await eventually("the first is parked", async () => (await parked()) === 1);
  // One is in the handler, and one waits for it: there is no room for more.
  await enqueue(["held", "waits"]);
  await one.received.length(2);
  const other = await member("b-2", options);
  await enqueue(["second"], "k");
  await enqueue(["free"]);
  await eventually("what is behind the second is handled", () => other.texts.includes("free"));
  expect(other.texts).not.toContain("second");
  held.open();
  await eventually("the second is parked behind the first", async () => (await parked()) === 2);
});
