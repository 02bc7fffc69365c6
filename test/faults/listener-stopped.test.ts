/**
 * A listener whose process stands still (SIGSTOP), as on a machine that swaps or in a debugger.
 */
import { expect, it, onTestFinished } from "vitest";
import { runningPeer } from "../scenarios/support/peer-process.js";
import { testDatabase } from "../support/database.js";
import { patienceMs } from "./support/kills.js";

it("has its messages stored meanwhile, and goes on: nothing is lost, doubled or out of order", {
  timeout: patienceMs,
}, async () => {
  const database = await testDatabase();
  onTestFinished(() => database.drop());
  const { url } = database;
  const [sender, listener, other] = await Promise.all([
    runningPeer(url, "a-1", { ackTimeoutMs: 3_000 }),
    runningPeer(url, "b-1"),
    runningPeer(url, "c-1"),
  ]);
  await sender.call("sendTo", "c", "hello");
  await sender.call("beginStream", { topic: "b", prefix: "message", window: 100, perSecond: 300 });
  await listener.messages.length(200);
  listener.kill("SIGSTOP");
  const before = sender.confirmed.all.length;
  // Two ack timeouts and more: it is not noticed any sooner, since its kernel still takes bytes.
  await sender.confirmed.until(
    "300 more are stored",
    (all) => all.slice(before).filter(({ outcome }) => outcome === "stored").length >= 300,
  );
  // Another listener of the same sender is not troubled.
  expect((await sender.call("sendTo", "c", "meanwhile")).outcome).toBe("delivered");
  const taken = listener.messages.all.length;
  listener.kill("SIGCONT");
  await listener.messages.length(taken + 300);
  const resumed = sender.confirmed.all.length;
  await sender.confirmed.until("messages are delivered again", (all) =>
    all.slice(resumed).some(({ outcome }) => outcome === "delivered"),
  );
  const last = await sender.call("endStream");
  await listener.messages.find(({ text }) => text === `message ${last}`);
  expect(sender.unconfirmed.all).toEqual([]);
  expect(listener.messages.all.map(({ text }) => text)).toEqual(
    Array.from({ length: last }, (_, n) => `message ${n + 1}`),
  );
  expect(await Promise.all([sender, listener, other].map((each) => each.finish()))).toEqual(
    Array(3).fill({ status: 0, signal: null }),
  );
});
