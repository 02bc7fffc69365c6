/**
 * Groups: what is stored for a member that is gone goes to the others.
 */
import { expect, it } from "vitest";

import { eventually } from "../support/eventually.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { TestPeer, TestPeerOptions } from "./support/world.js";

const world = sharedPeerWorld();

const takeover: TestPeerOptions = { defaults: { group: true, takeoverMs: 1_000 } };

const numbers = (from: number, to: number): string[] => Array.from({ length: to - from + 1 }, (_, n) => `${from + n}`);

/** A sender that has a connection to the listener. */
async function senderTo(listener: TestPeer): Promise<TestPeer> {
  const a = await world.started("a-1");
  const connected = a.saw("peer_connected");
  await a.listenersOf("b", { refresh: true });
  await connected;
  expect(await a.send("b", "1")).toEqual({ outcome: "delivered", peer: listener.name });
  return a;
}

/** Stops the only member of the topic "b". Its sender then knows that nobody serves the topic. */
async function leave(member: TestPeer, sender: TestPeer): Promise<void> {
  const left = sender.saw("peer_unsubscribed", ({ topic }) => topic === "b");
  await member.stop();
  await left;
}

it("a member gets what is stored for one that is gone, in order, and both get work when that one is back", async () => {
  const gone = await world.started("b-1", takeover);
  const a = await senderTo(gone);
  await leave(gone, a);
  const sent = await Promise.all(numbers(2, 20).map((text) => a.send("b", text)));
  expect(new Set(sent.map(({ outcome, peer }) => `${outcome} ${peer}`))).toEqual(new Set(["stored b-1"]));
  const heir = await world.started("b-2", takeover);
  await heir.received.length(19);
  expect(heir.texts).toEqual(numbers(2, 20));
  await gone.record();
  await eventually("both get work", async () => {
    await Promise.all([a.send("b", "more"), a.send("b", "more")]);
    return gone.texts.includes("more") && heir.texts.includes("more");
  });
  expect(gone.texts.filter((text) => text !== "more")).toEqual(["1"]);
  expect(await world.query("SELECT FROM hawser_peer_data.peers WHERE group_name = 'default'")).toHaveLength(2);
});

it("a message that only a member serves that is away waits for it, though others get the rest", async () => {
  const gone = world.peer("b-1", takeover);
  await gone.recordTopic("only1");
  await gone.record();
  const a = await senderTo(gone);
  await a.send("only1", "1");
  await gone.received.length(2);
  await leave(gone, a);
  await a.send("b", "2");
  const heir = await world.started("b-2", takeover);
  await heir.received.length(1);
  expect(await a.send("only1", "3")).toEqual({ outcome: "stored", peer: "b-1" });
  await a.send("b", "4");
  await heir.received.length(2);
  await gone.record();
  await gone.received.length(3);
  expect(gone.texts).toEqual(["1", "1", "3"]);
  expect(heir.texts).toEqual(["2", "4"]);
  expect(await world.deadLetters(0)).toEqual([]);
});
