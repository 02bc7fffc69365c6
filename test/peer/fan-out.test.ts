/**
 * Fan-out: what is enqueued for all listeners of a topic comes once to each of them, and once to each group.
 */
import { expect, it } from "vitest";
import type { PeerOptions } from "../../src/peer/index.js";
import { enqueueToAll } from "../outbox/support/to-all.js";
import { eventually } from "../support/eventually.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { TestPeer } from "./support/world.js";

const world = sharedPeerWorld();

const toAll = (texts: readonly string[], key: string | null = null): Promise<void> =>
  enqueueToAll((text, values) => world.query(text, values), "b", texts, key);

/** Away: it has been there, and has stopped. */
async function away(name: string, options: Partial<PeerOptions>): Promise<TestPeer> {
  const peer = await world.started(name, options);
  await peer.stop();
  return peer;
}

const all = (peers: readonly TestPeer[]): string[] => peers.flatMap(({ texts }) => texts).sort();

it("each durable listener has one copy, away or not, and each group has one", async () => {
  const here = await world.started("b-1", { durable: true });
  const gone = await away("b-2", { durable: true });
  const plain = await world.started("b-3");
  const billing = await Promise.all(["b-4", "b-5"].map((name) => world.started(name, { group: "billing" })));
  const audit = await Promise.all(["b-6", "b-7"].map((name) => world.started(name, { group: "audit" })));
  await toAll(["one", "two"]);
  for (const listener of [here, plain]) {
    await eventually("it has both", () => listener.texts.length === 2);
    expect(listener.texts.sort()).toEqual(["one", "two"]);
  }
  for (const group of [billing, audit]) {
    await eventually("the group has both", () => all(group).length === 2);
    expect(all(group)).toEqual(["one", "two"]);
  }
  expect(gone.texts).toEqual([]);
  await gone.record();
  await eventually("it has both, too", () => gone.texts.length === 2);
  expect(await world.storedMessages()).toBe(0);
});
