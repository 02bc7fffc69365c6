/**
 * Groups: members claim what is enqueued as they have room.
 */

import { expect, it } from "vitest";
import { listenerDefaults } from "../../src/channel/effects.js";
import { openStore } from "../../src/store/index.js";

import { eventually } from "../support/eventually.js";
import { gate } from "./support/gate.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { Handler, TestPeer, TestPeerOptions } from "./support/world.js";

const world = sharedPeerWorld();

const member = (name: string, options: TestPeerOptions = {}, handler?: Handler): Promise<TestPeer> =>
  world.started(name, { concurrency: 1, ...options, defaults: { group: true, ...options.defaults } }, handler);

const numbers = (from: number, to: number): string[] => Array.from({ length: to - from + 1 }, (_, n) => `${from + n}`);

async function enqueue(texts: readonly string[], key: string | null = null): Promise<void> {
  await world.query("SELECT hawser.enqueue_batch('b', $1::text[], key => $2)", [texts, key]);
}

it("a slow member holds the message in its handler and the next one, and the others have the rest", async () => {
  const held = gate();
  const slow = await member("b-1", {}, () => held.opened);
  await enqueue(["0"]);
  await slow.received.length(1);
  const fast = await member("b-2");
  await enqueue(numbers(1, 399));
  await eventually("the fast one has nearly all", () => fast.texts.length >= 398);
  held.open();
  await eventually("all are handled", () => fast.texts.length + slow.texts.length === 400);
  expect(slow.texts.length).toBeLessThanOrEqual(2);
  expect(new Set([...fast.texts, ...slow.texts]).size).toBe(400);
});

it("a key of which a message is parked stays with its member, also for what is enqueued later", async () => {
  const options = { defaults: { retry: { delayMs: 3_600_000, attempts: 2 } } };
  const held = gate();
  const one = await member("b-1", options, async ({ key }) => {
    if (key === undefined) await held.opened;
    else throw new Error("later");
  });
  await enqueue(["first"], "k");
  const parked = async (): Promise<number> => (await world.query("SELECT FROM hawser_data.parked_messages")).length;
  await eventually("the first is parked", async () => (await parked()) === 1);
  // One is in the handler, and one waits for it: there is no room for more.
  await enqueue(["held", "waits"]);
  await one.received.length(2);
  const other = await member("b-2", options);
  await enqueue(["second"], "k");
  await enqueue(["free"]);
  await eventually("what is behind the second is handled", () => other.texts.includes("free"));
  expect(other.texts).not.toContain("second");
  held.open();
  await eventually("the second is parked behind the first", async () => (await parked()) === 2);
});

it("what waits behind a parked message of a member goes to no listener outside of the group before that is done", async () => {
  const retry = { delayMs: 3_600_000, attempts: 2 };
  const b = await member("b-1", { defaults: { retry } }, () => {
    throw new Error("later");
  });
  await enqueue(["first"], "k");
  await eventually(
    "the first is parked",
    async () => (await world.query("SELECT FROM hawser_data.parked_messages")).length === 1,
  );
  await b.stop();
  const single = world.peer("b-2", { concurrency: 1 });
  // It runs the relay, and serves another topic at first.
  await single.recordTopic("other");
  await single.start();
  await enqueue(["second"], "k");
  await world.query("SELECT hawser.enqueue('nobody', 'adopted'::text)");
  await eventually("both wait", async () => (await world.storedMessages()) === 2);
  await single.recordTopic("b");
  await single.recordTopic("nobody");
  await single.received.length(1);
  expect(single.texts).toEqual(["adopted"]);
  const store = await openStore({ databaseUrl: world.url });
  await world.query("UPDATE hawser_data.parked_messages SET due_at = now()");
  await store.reassign({ from: "b-1", to: "b-2" });
  await store.close();
  await single.received.length(3);
  expect(single.texts).toEqual(["adopted", "first", "second"]);
});

it("each key is in order, with one member at a time, and messages without a key are for whoever is free", async () => {
  const running = new Map<string, string>();
  const seen: string[] = [];
  const handler: Handler = async ({ key, payload }) => {
    const text = Buffer.from(payload).toString();
    if (key !== undefined) {
      expect(running.get(key)).toBeUndefined();
      running.set(key, text);
    }
    await new Promise((resolve) => setImmediate(resolve));
    if (key !== undefined) running.delete(key);
    seen.push(`${key} ${text}`);
  };
  const members = await Promise.all(["b-1", "b-2", "b-3"].map((name) => member(name, { concurrency: 4 }, handler)));
  for (let n = 0; n < 20; n++) {
    await enqueue([`${3 * n}`, `${3 * n + 1}`, `${3 * n + 2}`], `key ${n % 5}`);
    await enqueue(["any"]);
  }
  await eventually("all are handled", () => seen.length === 80);
  for (let key = 0; key < 5; key++) {
    const ofKey = seen.filter((text) => text.startsWith(`key ${key} `)).map((text) => Number(text.split(" ")[2]));
    expect(ofKey).toEqual(ofKey.toSorted((one, other) => one - other));
  }
  expect(members.flatMap(({ statuses }) => statuses.all.filter(({ kind }) => kind === "gap"))).toEqual([]);
});

it("what a member has claimed when it is gone is taken over, with the order of its keys and each effect once", async () => {
  await world.query("CREATE TABLE ledger (id bigserial, what text)");
  const held = gate();
  const write: Handler = async ({ client, payload }) => {
    await client.query("INSERT INTO ledger (what) VALUES ($1)", [Buffer.from(payload).toString()]);
  };
  const options = { transactional: true, concurrency: 2, defaults: { takeoverMs: 1_000 } };
  const gone = await member("b-1", options, async (message) => {
    await write(message);
    await held.opened;
  });
  await enqueue(numbers(1, 6), "x");
  await enqueue(["y"]);
  await gone.received.length(2);
  await gone.stop({ timeoutMs: 0 });
  const heir = await member("b-2", options, write);
  await enqueue(numbers(7, 9), "x");
  await eventually("all have their effects", async () => (await world.query("SELECT FROM ledger")).length === 10);
  held.open();
  const written = (await world.query<{ what: string }>("SELECT what FROM ledger ORDER BY id")).map(({ what }) => what);
  expect(written.filter((text) => text !== "y")).toEqual(numbers(1, 9));
  expect(heir.texts.length).toBe(10);
});

it("a member that stops while a message waits to be tried again handles nothing again that it has finished", async () => {
  const handled: string[] = [];
  let isUnlucky = true;
  const b = world.peer("b-1", { concurrency: 4, defaults: { group: true } });
  // As long as may be without being parked.
  const retry = { attempts: 5, delayMs: listenerDefaults.parkDelayMs - 1, factor: 1 };
  await b.handle("b", { retry }, ({ payload }) => {
    const text = Buffer.from(payload).toString();
    handled.push(text);
    if (text === "0" && isUnlucky) throw new Error("not yet");
  });
  await b.start();
  await enqueue(numbers(0, 100));
  await eventually("all have begun", () => new Set(handled).size === 101);
  await b.stop();
  isUnlucky = false;
  handled.length = 0;
  await b.start();
  await enqueue(["last"]);
  await eventually("nothing is left", async () => handled.includes("last") && (await world.storedMessages()) === 0);
  expect(handled.sort()).toEqual(["0", "last"]);
});

it("transactional handlers of batches have each effect once", async () => {
  await world.query("CREATE TABLE ledger (id bigserial, what text)");
  const members = ["b-1", "b-2"].map((name) => world.peer(name, { concurrency: 2, defaults: { group: true } }));
  for (const each of members) {
    await each.handleBatch("b", { transactional: true, maxMessages: 10 }, async (messages, { client }) => {
      const texts = messages.map(({ payload }) => Buffer.from(payload).toString());
      if (texts.includes("13") && texts.length > 1) throw new Error("not with others");
      await client.query("INSERT INTO ledger (what) SELECT unnest($1::text[])", [texts]);
    });
  }
  await enqueue(numbers(1, 100));
  for (const each of members) await each.start();
  await eventually("all have their effects", async () => (await world.query("SELECT FROM ledger")).length >= 100);
  await eventually("nothing is left", async () => (await world.storedMessages()) === 0);
  const written = (await world.query<{ what: string }>("SELECT what FROM ledger")).map(({ what }) => Number(what));
  expect(written.sort((one, other) => one - other)).toEqual(numbers(1, 100).map(Number));
});

it("messages that were enqueued while no member ran are shared by those that come", async () => {
  const b = await member("b-1");
  await enqueue(["first"]);
  await b.received.length(1);
  await b.stop();
  // Another peer runs the relay.
  await world.started("a-1");
  await enqueue(numbers(1, 20));
  await eventually("they are handed over", async () => (await world.storedMessages()) === 20);
  const held = gate();
  const slow = await member("b-2", {}, () => held.opened);
  await slow.received.length(1);
  const fast = await member("b-3");
  await eventually("the other one has nearly all", () => fast.texts.length >= 18);
  held.open();
  await eventually("all are handled", async () => (await world.storedMessages()) === 0);
});
