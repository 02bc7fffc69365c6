/**
 * Channels that were taken over by a listener that does not serve all of their topics: they go to one that does.
 */
import { afterEach, beforeEach, expect, it } from "vitest";
import { openStore, type Store } from "../../src/jobs-and-peers/peer-store/store.js";
import { eventually } from "../support/eventually.js";
import { slowIt } from "../support/slow-it.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { TestPeer, TestPeerOptions } from "./support/world.js";

const world = sharedPeerWorld();
let store: Store;
beforeEach(async () => {
  store = await openStore({ databaseUrl: world.url });
});
afterEach(() => store.close());

async function ownersOf(listener: string): Promise<string[]> {
  const rows = await world.query<{ owner: string }>(
    "SELECT coalesce(owner, listener_name) AS owner FROM hawser_peer_data.channels WHERE listener_name = $1",
    [listener],
  );
  return rows.map(({ owner }) => owner);
}

/** Hands over what a listener owns, as a peer with `takeoverMs` does. */
async function takeOver(from: string, to: string): Promise<void> {
  const channelIds = (await store.ownedChannels(from)).map(({ channelId }) => channelId);
  await store.reassign({ from, to, channelIds });
}

/**
 * `l-1` serves "shared" and "only1", and has handled a message of each. It is gone, and `l-2`, which serves "shared", has its
 * channels.
 */
async function takenOver(options: TestPeerOptions = {}): Promise<{ s: TestPeer; l1: TestPeer; l2: TestPeer }> {
  const l1 = world.peer("l-1", { topic: "shared", ...options });
  await l1.recordTopic("only1");
  await l1.record();
  const s = await world.started("s-1");
  await s.send("shared", "0");
  await s.send("only1", "0");
  await l1.stop();
  const l2 = await world.started("l-2", { topic: "shared", ...options });
  await takeOver("l-1", "l-2");
  await s.saw("peer_connected", ({ peer }) => peer === "l-2");
  await s.saw("peer_connected", ({ peer, message }) => peer === "l-1" && message.includes('"l-2"'));
  return { s, l1, l2 };
}

const numbers = (from: number, to: number): string[] => Array.from({ length: to - from + 1 }, (_, n) => `${from + n}`);

it.each([{ transactional: false }, { transactional: true }])(
  "a message goes to the listener that serves its topic and runs again, with all that follows it, %j",
  async (options) => {
    const { s, l1, l2 } = await takenOver(options);
    await l1.record();
    await Promise.all(numbers(1, 20).map((text) => s.send("only1", text)));
    await l1.received.length(22);
    expect(l1.texts).toEqual(["0", "0", ...numbers(1, 20)]);
    expect(await ownersOf("l-1")).toEqual(["l-1"]);
    expect(await world.deadLetters(0)).toEqual([]);
    expect(l2.texts).toEqual([]);
  },
);

it("a message for a listener that is away waits for it, and messages that others serve do not wait behind it", async () => {
  const { s, l1, l2 } = await takenOver();
  expect((await s.send("only1", "waits")).outcome).toBe("stored");
  await eventually("the channel is l-1's again", async () => (await ownersOf("l-1"))[0] === "l-1");
  await s.send("shared", "does not wait");
  await l2.received.length(1);
  expect(l2.texts).toEqual(["does not wait"]);
  await l1.record();
  await l1.received.find(({ text }) => text === "waits");
  expect(await world.deadLetters(0)).toEqual([]);
});

it("a dead letter is retried by the listener that serves its topic", async () => {
  const { s, l1, l2 } = await takenOver();
  // Everything that it has: messages do not wait for it.
  await store.reassign({ from: "l-1", to: "l-2" });
  await s.send("only1", "late");
  expect((await world.deadLetters(1)).map(({ error_code }) => error_code)).toEqual(["unsubscribed"]);
  expect(l2.texts).toEqual([]);
  await l1.record();
  await store.deadLetters.retry({ all: true });
  await l1.received.find(({ text }) => text === "late");
  expect(await world.deadLetters(0)).toEqual([]);
});

slowIt("a request and an at-most-once message bring the channel to the listener that serves their topic", async () => {
  const { s, l1 } = await takenOver();
  await l1.record(() => "answer");
  await eventually("a request is answered", async () => {
    const answer = await s.request("only1", "question").catch(() => undefined);
    return answer !== undefined && Buffer.from(answer.payload).toString() === "answer";
  });
  expect(await ownersOf("l-1")).toEqual(["l-1"]);
  await l1.stop();
  await takeOver("l-1", "l-2");
  await l1.record();
  await eventually("an at-most-once message arrives", async () => {
    await s.send("only1", "at most once", { delivery: "at-most-once" });
    return l1.texts.includes("at most once");
  });
});

it("what a sender sends goes to another listener of the topic rather than over a channel whose owner does not serve it", async () => {
  const { s } = await takenOver({ defaults: { durable: true } });
  const l3 = await world.started("l-3", { topic: "only1" });
  await s.saw("peer_connected", ({ peer }) => peer === "l-3");
  await Promise.all(numbers(1, 20).map((text) => s.send("only1", text)));
  await l3.received.length(20);
  expect(l3.texts).toEqual(numbers(1, 20));
  expect(await ownersOf("l-1")).toEqual(["l-2"]);
});

it("what is enqueued goes to the listener that serves its topic and runs again", async () => {
  const { l1, l2 } = await takenOver();
  await l1.record();
  const enqueue = (topic: string, text: string) => world.query("SELECT hawser.enqueue($1, $2)", [topic, text]);
  await enqueue("only1", "1");
  await l1.received.length(3);
  await l1.stop();
  await takeOver("l-1", "l-2");
  await enqueue("only1", "2");
  await l1.record();
  await l1.received.length(4);
  expect(l1.texts).toEqual(["0", "0", "1", "2"]);
  expect(await world.deadLetters(0)).toEqual([]);
  expect(l2.texts).toEqual([]);
});
