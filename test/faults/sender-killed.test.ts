/**
 * A sender that is killed: what it had heard to be confirmed arrives, whoever is there to take it.
 */
import { expect, it, onTestFinished } from "vitest";
import { type PeerProcess, peerProcess, runningPeer } from "../scenarios/support/peer-process.js";
import { testDatabase } from "../support/database.js";
import { loopTimeoutMs, patienceMs } from "./support/kills.js";

it("had everything arrive that was confirmed to it, once and in order: killed 8 times", {
  timeout: loopTimeoutMs(8),
}, async () => {
  const database = await testDatabase();
  onTestFinished(() => database.drop());
  const { url } = database;
  const received: { sender: string; text: string }[] = [];
  let listener = await runningPeer(url, "b-1");
  const senders: PeerProcess[] = [];
  const endListener = async (): Promise<void> => {
    await listener.finish();
    received.push(...listener.messages.all);
  };

  for (let round = 0; round < 8; round++) {
    const sender = await runningPeer(url, "a-1");
    senders.push(sender);
    await sender.call("beginStream", {
      topic: "b",
      prefix: `${round}`,
      window: 1 + ((round * 97) % 300),
      perSecond: 500,
    });
    await sender.confirmed.length(50 + ((round * 61) % 173));
    if (round === 2) {
      // From here on nobody listens, so that what is confirmed is stored.
      await endListener();
      const before = sender.confirmed.all.length;
      await sender.confirmed.length(before + 200);
    }
    // In the middle of much.
    await sender.call("hurryStream", 200);
    await sender.crash();
    if (round === 4) listener = await runningPeer(url, "b-1");
  }
  const last = await runningPeer(url, "a-1");
  await last.call("sendTo", "b", "end 0");
  await listener.messages.find(({ text }) => text === "end 0");
  await endListener();

  const texts = received.map(({ text }) => text);
  const taken = new Set(texts);
  expect(taken.size, "nothing came twice").toBe(texts.length);
  const confirmed = senders.flatMap((sender, round) => sender.confirmed.all.map(({ number }) => `${round} ${number}`));
  expect(confirmed.filter((text) => !taken.has(text))).toEqual([]);
  const outcomes = new Set(senders.flatMap((sender) => sender.confirmed.all.map(({ outcome }) => outcome)));
  expect(outcomes).toEqual(new Set(["delivered", "stored"]));
  const order = texts.slice(0, -1).map((text) => text.split(" ").map(Number) as [number, number]);
  expect(order).toEqual([...order].sort(([r1, n1], [r2, n2]) => r1 - r2 || n1 - n2));
  // Within a round there is no hole before the last that came.
  for (const [round] of senders.entries()) {
    const numbers = order.filter(([each]) => each === round).map(([, number]) => number);
    expect(numbers).toEqual(numbers.map((_, index) => index + 1));
  }
});

it("leaves its name free within seconds, also when it was killed while it stored", {
  timeout: patienceMs,
}, async () => {
  const database = await testDatabase();
  onTestFinished(() => database.drop());
  const { url } = database;
  const listener = await runningPeer(url, "b-1");
  const first = await runningPeer(url, "a-1");
  await first.call("sendTo", "b", "hello");
  await listener.finish();
  await first.call("beginStream", { topic: "b", prefix: "x", window: 500, perSecond: 1_000 });
  const second = await peerProcess(url, "a-1").ready();
  await first.confirmed.length(500);
  await first.crash();
  const begun = performance.now();
  await second.call("run");
  // Less than it is waited for by default: a name that is not free by then is refused.
  expect(performance.now() - begun).toBeLessThan(10_000);
});
