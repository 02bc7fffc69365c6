/**
 * Routes of messages when listeners leave, move, take each other's addresses, subscribe and unsubscribe.
 */
import { expect, it } from "vitest";
import { ownPort } from "../support/own-port.js";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";
import { ownDatabase, storedMessages, textsOf } from "./support/own-database.js";
import { type PeerProcess, peerProcess, runningPeer } from "./support/peer-process.js";

it("a listener that is away is stored for by a sender that never met it if it is durable, else unknown to it", async () => {
  const url = await ownDatabase();
  const durable = await runningPeer(url, "b-1", { defaults: { durable: true } });
  const other = await runningPeer(url, "c-1");
  await Promise.all([durable.finish(), other.finish()]);
  const a = await runningPeer(url, "a-1");
  for (const text of ["1", "2"]) expect(await a.call("sendTo", "b", text)).toEqual({ outcome: "stored", peer: "b-1" });
  await expect(a.call("sendTo", "c", "1")).rejects.toMatchObject({ code: "no_listener" });
  expect(await storedMessages(url)).toBe(2);
  await a.finish();
  const back = await runningPeer(url, "b-1", { defaults: { durable: true } });
  await back.messages.length(2);
  expect(textsOf(back)).toEqual(["1", "2"]);
});

it("a listener that moves to other addresses while two senders send gets everything once and in order", async () => {
  const url = await ownDatabase();
  const senders = await Promise.all([runningPeer(url, "a-1"), runningPeer(url, "c-1")]);
  const listeners: PeerProcess[] = [];
  const addresses = new Set<string>();
  for (const end of ["finish", "crash", "finish", undefined] as const) {
    const address = `127.0.0.1:${await ownPort()}`;
    addresses.add(address);
    const b = await runningPeer(url, "b-1", { listen: address });
    listeners.push(b);
    expect(await b.call("listenersOf", "b")).toEqual([{ address, name: "b-1" }]);
    if (listeners.length === 1) {
      for (const [n, sender] of senders.entries()) {
        await sender.call("beginStream", { topic: "b", prefix: `${n}`, window: 100, perSecond: 200 });
      }
    }
    // Until both are live with it where it is now.
    const confirmed = senders.map((sender) => sender.confirmed.all.length);
    for (const [n, sender] of senders.entries()) {
      await sender.confirmed.until("it is delivered", (all) =>
        all.slice(confirmed[n]).some(({ outcome }) => outcome === "delivered"),
      );
    }
    if (end !== undefined) await b[end]();
  }
  expect(addresses.size).toBe(4);
  const lasts = await Promise.all(senders.map((sender) => sender.call("endStream")));
  const here = listeners.at(-1) as PeerProcess;
  for (const [n, last] of lasts.entries()) await here.messages.find(({ text }) => text === `${n} ${last}`);
  for (const sender of senders) expect(sender.unconfirmed.all).toEqual([]);
  const texts = listeners.flatMap(textsOf);
  for (const [n, last] of lasts.entries()) {
    const mine = texts.filter((text) => text.startsWith(`${n} `));
    // The killed one may have begun some that it could not commit: those come again, in order.
    const first = [...new Set(mine)];
    expect(first).toEqual(Array.from({ length: last }, (_, number) => `${n} ${number + 1}`));
  }
  const repeated = texts.filter((text, index) => texts.indexOf(text) !== index);
  const ofKilled = new Set(textsOf(listeners[1] as PeerProcess));
  expect(repeated.filter((text) => !ofKilled.has(text))).toEqual([]);
});

it("an address that another peer has taken leads to nobody: its messages are stored for whom they are meant", async () => {
  const url = await ownDatabase();
  const a = await runningPeer(url, "a-1");
  const address = `127.0.0.1:${await ownPort()}`;
  const b = await runningPeer(url, "b-1", { listen: address });
  expect((await a.call("sendTo", "b", "1")).outcome).toBe("delivered");
  // Killed, it stays in the directory.
  await b.crash();
  const c = await runningPeer(url, "c-1", { listen: address });
  expect(await c.call("listenersOf", "b")).toEqual([{ address, name: "b-1" }]);
  for (const text of ["2", "3"]) expect(await a.call("sendTo", "b", text)).toEqual({ outcome: "stored", peer: "b-1" });
  await a.statuses.find((status) => status.kind === "sender_send_error" && status.error.code === "wrong_peer");
  await c.statuses.find((status) => status.kind === "handshake_refused" && status.code === "wrong_peer");
  expect(await a.call("pendingCount")).toBe(2);
  // What is meant for the one that is there now reaches it.
  expect(await a.call("sendTo", "c", "for c")).toEqual({ outcome: "delivered", peer: "c-1" });
  await c.messages.length(1);
  expect(textsOf(c)).toEqual(["for c"]);
  const back = await runningPeer(url, "b-1");
  await back.messages.length(2);
  expect(textsOf(back)).toEqual(["2", "3"]);
  await eventually("b's channel is live", async () => (await a.call("sendTo", "b", "4")).outcome === "delivered");
  expect(textsOf(c)).toEqual(["for c"]);
});

it.each(["finish", "crash"] as const)(
  "a reply to a sender that has left by %s is stored, and there when it is back",
  async (end) => {
    const url = await ownDatabase();
    const a = await runningPeer(url, "a-1");
    const b = await runningPeer(url, "b-1", { handler: "reply" });
    await a.call("sendTo", "b", "first");
    await a.messages.length(1);
    await b.finish();
    expect((await a.call("sendTo", "b", "second")).outcome).toBe("stored");
    await a[end]();
    const again = await runningPeer(url, "b-1", { handler: "reply" });
    await again.messages.length(1);
    await eventually("the reply is stored", async () => (await again.call("pendingCount")) === 1);
    const back = await runningPeer(url, "a-1");
    await back.messages.length(1);
    expect(back.messages.all).toMatchObject([{ senderTopic: "b", sender: "b-1", text: "re second" }]);
    await eventually("nothing is stored", async () => (await storedMessages(url)) === 0);
  },
);

it("a topic that a killed process subscribed and its successor unsubscribed has no address, and nothing more arrives", async () => {
  const url = await ownDatabase();
  const a = await runningPeer(url, "a-1");
  const b = peerProcess(url, "b-1", { handler: "reply" });
  await b.call("handle", "news");
  await b.call("run");
  await a.call("sendTo", "news", "one");
  await a.messages.length(1);
  await b.crash();
  const successor = await runningPeer(url, "b-1", { handler: "reply" });
  await successor.call("handle", "news");
  await successor.call("stopHandling", "news");
  expect(await a.call("listenersOf", "news", true)).toEqual([]);
  await expect(a.call("sendTo", "news", "two")).rejects.toMatchObject({ code: "no_listener" });
  // Also for a sender that begins anew, and remembers whom it has met.
  await a.finish();
  const again = await runningPeer(url, "a-1");
  await expect(again.call("sendTo", "news", "three")).rejects.toMatchObject({ code: "no_listener" });
  await again.call("sendTo", "b", "marker");
  await again.messages.length(1);
  expect(textsOf(again)).toEqual(["re marker"]);
  // Another process: what it tells may come later than the answer.
  await successor.messages.length(1);
  expect(textsOf(successor)).toEqual(["marker"]);
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
  await a.call("sendTo", "b", "marker");
  await b.messages.find(({ text }) => text === "marker");

  expect(new Set(a.unconfirmed.all.map(({ failure }) => failure.code))).toEqual(new Set(["no_listener"]));
  const handled = textsOf(b).filter((text) => text !== "marker");
  const dead = (
    await rowsOf(url, "SELECT convert_from(payload, 'UTF8') AS text, error_code FROM hawser_data.dead_letters")
  ).map((row) => row as { text: string; error_code: string });
  expect(new Set(dead.map(({ error_code }) => error_code)).size).toBeLessThanOrEqual(1);
  expect(dead.every(({ error_code }) => error_code === "unsubscribed")).toBe(true);
  const found = [...handled, ...dead.map(({ text }) => text)];
  expect(new Set(found).size, "nothing is twice").toBe(found.length);
  const confirmed = a.confirmed.all.map(({ number }) => `x ${number}`);
  expect(confirmed.filter((text) => !found.includes(text))).toEqual([]);
  const order = handled.map((text) => Number(text.slice(2)));
  expect(order).toEqual([...order].sort((one, other) => one - other));
  console.log(`${confirmed.length} confirmed: ${handled.length} handled, ${dead.length} dead letters`);
});
