/**
 * Routes of messages when listeners are killed, move, subscribe and unsubscribe.
 */
import { expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";
import { ownDatabase, storedMessages, textsOf } from "./support/own-database.js";
import { runningPeer } from "./support/peer-process.js";

const numbers = (from: number, to: number): string[] => Array.from({ length: to - from + 1 }, (_, n) => `${from + n}`);

it("a listener that was killed is stored for, also by the next process of its killed sender, and has all once and in order", async () => {
  const url = await ownDatabase();
  let a = await runningPeer(url, "a-1");
  const b = await runningPeer(url, "b-1");
  for (const text of numbers(1, 2)) expect((await a.call("sendTo", "b", text)).outcome).toBe("delivered");
  await b.crash();
  // It is still in the directory.
  expect(await a.call("listenersOf", "b")).toHaveLength(1);
  for (const text of numbers(3, 4)) expect((await a.call("sendTo", "b", text)).outcome).toBe("stored");
  await a.crash();
  a = await runningPeer(url, "a-1");
  for (const text of numbers(5, 6)) expect((await a.call("sendTo", "b", text)).outcome).toBe("stored");
  const back = await runningPeer(url, "b-1");
  await a.call("sendTo", "b", "7");
  await back.messages.find(({ text }) => text === "7");
  // In order: whatever came again would have come before it.
  expect([...textsOf(b), ...textsOf(back)]).toEqual(numbers(1, 7));
  await Promise.all([a.finish(), back.finish()]);
  expect(await storedMessages(url)).toBe(0);
});

it("a topic that is subscribed and unsubscribed 10 times while messages flow loses nothing that was confirmed", async () => {
  const url = await ownDatabase();
  const [a, b] = await Promise.all([runningPeer(url, "a-1"), runningPeer(url, "b-1")]);
  await a.call("beginStream", { topic: "news", prefix: "x", window: 50, perSecond: 500 });
  for (let round = 0; round < 10; round++) {
    const [taken, refused] = [a.confirmed.all.length, a.unconfirmed.all.length];
    await b.call("handle", "news");
    await a.confirmed.length(taken + 20);
    await a.call("hurryStream", 40);
    await b.call("stopHandling", "news");
    await a.unconfirmed.length(refused + 20);
  }
  await b.call("handle", "news");
  await a.confirmed.length(a.confirmed.all.length + 20);
  await a.call("endStream");
  const confirmed = a.confirmed.all.map(({ number }) => `x ${number}`);
  const deadLetters = (): Promise<Record<string, unknown>[]> =>
    rowsOf(url, "SELECT convert_from(payload, 'UTF8') AS text, error_code FROM hawser_data.dead_letters");
  // What left for the queue may be handled later than messages of other topics.
  await eventually("all that was confirmed has ended", async () => {
    const ended = new Set([...textsOf(b), ...(await deadLetters()).map(({ text }) => text)]);
    return confirmed.every((text) => ended.has(text));
  });
  expect(new Set(a.unconfirmed.all.map(({ failure }) => failure.code))).toEqual(new Set(["no_listener"]));
  const handled = textsOf(b);
  const dead = await deadLetters();
  expect(dead.every(({ error_code }) => error_code === "unsubscribed")).toBe(true);
  const found = [...handled, ...dead.map(({ text }) => text)];
  expect(new Set(found).size, "nothing is twice").toBe(found.length);
  const order = handled.map((text) => Number(text.slice(2)));
  expect(order).toEqual([...order].sort((one, other) => one - other));
  console.log(`${confirmed.length} confirmed: ${handled.length} handled, ${dead.length} dead letters`);
});
