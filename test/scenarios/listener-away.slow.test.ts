/**
 * A listener that is away: what is stored for it, what is not, and that it has everything once, in order, when it is
 * back.
 */
import { expect, it } from "vitest";
import { ownPort } from "../support/own-port.js";
import { eventually } from "../support/eventually.js";
import { onServer } from "../support/on-server.js";
import { ownDatabase, storedMessages, textsOf } from "./support/own-database.js";
import { runningPeer } from "./support/peer-process.js";

/** Enters a listener that is not there in the directory, as an operator does. Resolves with its address. */
async function preRegister(url: string, name: string, topic = name.split("-")[0] as string): Promise<string> {
  const address = `127.0.0.1:${await ownPort()}`;
  await onServer(
    url,
    `INSERT INTO hawser_data.listeners (topic, addr, listener_name) VALUES ('${topic}', '${address}', '${name}')
     ON CONFLICT (topic, addr) DO UPDATE SET listener_name = excluded.listener_name`,
  );
  return address;
}

const numbers = (from: number, to: number): string[] => Array.from({ length: to - from + 1 }, (_, n) => `${from + n}`);

it("that was pre-registered and has never run gets what was stored for it, from a sender that goes on", async () => {
  const url = await ownDatabase();
  const address = await preRegister(url, "b-1");
  const a = await runningPeer(url, "a-1");
  expect(await a.call("listenersOf", "b", true)).not.toEqual([]);
  expect(await a.call("sendTo", "b", "offline")).toEqual({ outcome: "stored", peer: "b-1" });
  // Compressed in the table.
  const long = "abcd".repeat((2 * 1024 * 1024) / 4);
  expect((await a.call("sendTo", "b", long)).outcome).toBe("stored");
  expect(await a.call("pendingCount")).toBe(2);
  const b = await runningPeer(url, "b-1", { listen: address });
  await b.messages.length(2);
  expect(textsOf(b)[1] === long).toBe(true);
  expect(b.messages.all.slice(0, 1)).toMatchObject([
    { text: "offline", senderTopic: "a", sender: "a-1", delivery: "at-least-once" },
  ]);
  await eventually("nothing is pending", async () => (await a.call("pendingCount")) === 0);
  expect(await storedMessages(url)).toBe(0);
});

it("that was pre-registered gets 100 in order from a sender that has stopped meanwhile", async () => {
  const url = await ownDatabase();
  const address = await preRegister(url, "b-1");
  const a = await runningPeer(url, "a-1");
  const receipts = await Promise.all(numbers(1, 100).map((text) => a.call("sendTo", "b", text)));
  expect(new Set(receipts.map(({ outcome }) => outcome))).toEqual(new Set(["stored"]));
  expect(await a.finish()).toEqual({ status: 0, signal: null });
  expect(await storedMessages(url)).toBe(100);
  const b = await runningPeer(url, "b-1", { listen: address });
  await b.messages.length(100);
  expect(textsOf(b)).toEqual(numbers(1, 100));
  await eventually("nothing is stored", async () => (await storedMessages(url)) === 0);
});

it("and another one of its topic both get what was sent to all while both were away", async () => {
  const url = await ownDatabase();
  await preRegister(url, "all-1");
  await preRegister(url, "all-2");
  const a = await runningPeer(url, "a-1");
  const receipts = await a.call("sendAll", "all", "to both");
  expect(receipts.sort((one, other) => (one.peer < other.peer ? -1 : 1))).toEqual([
    { outcome: "stored", peer: "all-1" },
    { outcome: "stored", peer: "all-2" },
  ]);
  const both = await Promise.all([runningPeer(url, "all-1"), runningPeer(url, "all-2")]);
  await Promise.all(both.map(({ messages }) => messages.length(1)));
  expect(both.map(textsOf)).toEqual([["to both"], ["to both"]]);
});

it.each(["finish", "crash"] as const)(
  "is stored for, also by the sender's next process, and has all once and in order after both ended by %s",
  async (end) => {
    const url = await ownDatabase();
    let a = await runningPeer(url, "a-1");
    const b = await runningPeer(url, "b-1");
    for (const text of numbers(1, 2)) expect((await a.call("sendTo", "b", text)).outcome).toBe("delivered");
    await b[end]();
    // After a clean stop it has left the directory; the sender has met it.
    expect(await a.call("listenersOf", "b")).toHaveLength(end === "finish" ? 0 : 1);
    for (const text of numbers(3, 4)) expect((await a.call("sendTo", "b", text)).outcome).toBe("stored");
    await a[end]();
    a = await runningPeer(url, "a-1");
    for (const text of numbers(5, 6)) expect((await a.call("sendTo", "b", text)).outcome).toBe("stored");
    const back = await runningPeer(url, "b-1");
    await a.call("sendTo", "b", "7");
    await back.messages.find(({ text }) => text === "7");
    // In order: whatever came again would have come before it.
    expect([...textsOf(b), ...textsOf(back)]).toEqual(numbers(1, 7));
    await Promise.all([a.finish(), back.finish()]);
    expect(await storedMessages(url)).toBe(0);
  },
);

it("misses what was sent to it at most once: it is dropped, and nothing is stored", async () => {
  const url = await ownDatabase();
  const address = await preRegister(url, "b-1");
  const a = await runningPeer(url, "a-1");
  expect(await a.call("sendTo", "b", "at most once", "at-most-once")).toEqual({ outcome: "dropped", peer: "b-1" });
  expect(await a.call("pendingCount")).toBe(0);
  expect(await storedMessages(url)).toBe(0);
  await a.finish();
  const b = await runningPeer(url, "b-1", { listen: address });
  const again = await runningPeer(url, "a-1");
  await again.call("sendTo", "b", "at least once");
  await b.messages.length(1);
  expect(textsOf(b)).toEqual(["at least once"]);
});

it("replies when it is back, and the reply reaches its sender after both were restarted", async () => {
  const url = await ownDatabase();
  await preRegister(url, "b-1");
  const a = await runningPeer(url, "a-1");
  expect((await a.call("sendTo", "b", "question")).outcome).toBe("stored");
  await a.finish();
  const b = await runningPeer(url, "b-1", { handler: "reply" });
  await b.messages.length(1);
  await eventually("the reply is stored, the question is gone", async () => (await b.call("pendingCount")) === 1);
  await b.finish();
  expect(await storedMessages(url)).toBe(1);
  const [asker, answerer] = [await runningPeer(url, "a-1"), await runningPeer(url, "b-1", { handler: "reply" })];
  await asker.messages.length(1);
  expect(asker.messages.all).toMatchObject([{ senderTopic: "b", sender: "b-1", topic: "a", text: "re question" }]);
  // And the two go on.
  await asker.call("sendTo", "b", "more");
  await asker.messages.length(2);
  expect(textsOf(asker)).toEqual(["re question", "re more"]);
  await answerer.messages.length(1);
  expect(textsOf(answerer)).toEqual(["more"]);
});
