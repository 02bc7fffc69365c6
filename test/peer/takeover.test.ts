/**
 * Takeover: what is stored for a listener that has been away for `takeoverMs` is for any listener of its topics.
 */
import { expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { TestPeer } from "./support/world.js";

const world = sharedPeerWorld();

const takeoverMs = 1_000;
const numbers = (from: number, to: number): string[] => Array.from({ length: to - from + 1 }, (_, n) => `${from + n}`);

const isReleased = (name: string) =>
  eventually(`what is stored for "${name}" is released`, async () => {
    const stored = await world.query(
      `SELECT FROM hawser_peer_data.stored_messages JOIN hawser_peer_data.channels USING (channel_id) WHERE listener_name = $1`,
      [name],
    );
    return stored.length === 0;
  });

/** `b-1` has handled "1" of the topics "b" and "only1", and is gone. */
async function gone(): Promise<[a: TestPeer, b1: TestPeer]> {
  const b1 = world.peer("b-1");
  await b1.recordTopic("only1");
  await b1.record();
  const a = await world.started("a-1", { tuning: { ackTimeoutMs: 2_000 } });
  await a.send("b", "1");
  await a.send("only1", "1");
  await b1.stop();
  return [a, b1];
}

it("another listener handles what is stored for one that is gone, in order, and the one that comes back goes on", async () => {
  const [a, b1] = await gone();
  await Promise.all(numbers(2, 20).map((text) => a.send("b", text)));
  const b2 = await world.started("b-2", { defaults: { takeoverMs } });
  await b2.received.length(19);
  expect(b2.texts).toEqual(numbers(2, 20));
  await world.handled();
  const before = b1.texts.length;
  await b1.record();
  await a.saw("peer_subscribed", ({ peer }) => peer === "b-1", a.statuses.all.length - 1).catch(() => undefined);
  await eventually("it has work again", async () => {
    await a.sendAll("b", "more");
    return b1.texts.length > before;
  });
  await world.handled();
  expect(new Set(b1.texts.slice(before))).toEqual(new Set(["more"]));
  expect(await world.deadLetters(0)).toEqual([]);
});

it("what comes for a listener that is back while its messages wait in the queue comes behind them, by key", async () => {
  const [a, b1] = await gone();
  await Promise.all(numbers(2, 9).map((text) => a.send("b", text, { key: "k" })));
  const watching = world.peer("b-2", { defaults: { takeoverMs } });
  await watching.recordTopic("b");
  await world.query("SELECT hawser.pause_topic('b')");
  await watching.start();
  await isReleased("b-1");
  await watching.stop();
  await b1.record();
  const sent = numbers(10, 15).map((text) => a.send("b", text, { key: "k" }));
  await Promise.all(sent);
  await world.query("SELECT hawser.resume_topic('b')");
  await b1.received.length(2 + 14);
  expect(b1.texts.slice(2)).toEqual(numbers(2, 15));
  await world.handled();
});

it("a listener that does not serve all topics of a channel leaves its messages to the one that is away", async () => {
  const [a, b1] = await gone();
  await Promise.all([a.send("b", "2"), a.send("only1", "3")]);
  const b2 = await world.started("b-2", { defaults: { takeoverMs } });
  await b1.record();
  await b1.received.length(4);
  expect(b1.texts.slice(2)).toEqual(["2", "3"]);
  expect(b2.texts).toEqual([]);
  await world.handled();
});
