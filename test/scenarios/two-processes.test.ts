/**
 * Two real processes that are both there. What they do when one is not is in the slow files beside this one.
 */
import { expect, it } from "vitest";
import { ownDatabase, textsOf } from "./support/own-database.js";
import { peerProcess, runningPeer } from "./support/peer-process.js";

it("exchange a burst of messages and replies, once each and in order, and end by themselves", async () => {
  const url = await ownDatabase();
  const b = peerProcess(url, "b-1", { handler: "reply" });
  await b.call("handle", "news");
  const [a] = await Promise.all([runningPeer(url, "a-1"), b.call("run")]);
  expect(a.pid).not.toBe(b.pid);
  expect(await a.call("listenersOf", "news", true)).not.toEqual([]);
  const texts = Array.from({ length: 100 }, (_, n) => `${n}`);
  const receipts = await Promise.all(texts.map((text) => a.call("sendTo", "news", text)));
  expect(receipts.every(({ outcome, peer }) => peer === "b-1" && /delivered|stored/.test(outcome))).toBe(true);
  await Promise.all([a.messages.length(100), b.messages.length(100)]);
  expect(b.messages.all[0]).toMatchObject({ topic: "news", senderTopic: "a", sender: "a-1" });
  expect(a.messages.all[0]).toMatchObject({ topic: "a", senderTopic: "b", sender: "b-1" });
  // Whatever came twice would have come before this.
  await a.call("sendTo", "b", "end");
  await a.messages.length(101);
  await b.messages.length(101);
  expect(textsOf(b)).toEqual([...texts, "end"]);
  expect(textsOf(a)).toEqual([...texts, "end"].map((text) => `re ${text}`));
  // A stopped peer leaves no socket, session or timer behind.
  expect(await Promise.all([a.finish(), b.finish()])).toEqual(Array(2).fill({ status: 0, signal: null }));
  expect([a.output, b.output]).toEqual(["", ""]);
});
