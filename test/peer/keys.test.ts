import { describe, expect, it } from "vitest";
import { enqueue, type Message, Reject } from "../../src/jobs-and-peers/peer/index.js";
import { openStore } from "../../src/jobs-and-peers/peer-store/store.js";
import { eventually } from "../support/eventually.js";
import { failure } from "./support/errors.js";
import { gate } from "./support/gate.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

describe("a key", () => {
  it("keeps messages in order, and lets those of other keys pass", async () => {
    const a = await world.started("a-1");
    const held = gate();
    const seen: string[] = [];
    await world.started("b-1", { tuning: { busyAfterMs: 60_000 } }, async ({ key, payload }: Message) => {
      const text = Buffer.from(payload).toString();
      if (text === "slow") await held.opened;
      seen.push(`${key} ${text}`);
    });
    const slow = a.send("b", "slow", { key: "x" });
    const behind = a.send("b", "behind", { key: "x" });
    await Promise.all([
      a.send("b", "y", { key: "y", delivery: "at-most-once" }),
      a.send("b", "plain", { delivery: "at-most-once" }),
    ]);
    await eventually("others pass", () => seen.length === 2);
    expect(seen.sort()).toEqual(["undefined plain", "y y"]);
    held.open();
    await Promise.all([slow, behind]);
    expect(seen.slice(2)).toEqual(["x slow", "x behind"]);
  });

  it("is what messages need to be handled at the same time: those without one are handled one after another", async () => {
    const a = await world.started("a-1");
    const held = gate();
    const begun: string[] = [];
    await world.started("b-1", { tuning: { busyAfterMs: 60_000 } }, async ({ payload }: Message) => {
      begun.push(Buffer.from(payload).toString());
      await held.opened;
    });
    const plain = [a.send("b", "plain 1"), a.send("b", "plain 2")];
    const keyed = [a.send("b", "x", { key: "x" }), a.send("b", "y", { key: "y" })];
    await eventually("one of each key, and one without", () => begun.length === 3);
    expect(begun.sort()).toEqual(["plain 1", "x", "y"]);
    held.open();
    await Promise.all([...plain, ...keyed]);
    expect(begun.slice(3)).toEqual(["plain 2"]);
  });

  it("belongs to one listener of its topic", async () => {
    const a = await world.started("a-1");
    const names = ["b-1", "b-2", "b-3"];
    await Promise.all(names.map((name) => world.started(name)));
    await a.listenersOf("b", { refresh: true });
    const peers = new Map<string, Set<string>>();
    for (let n = 0; n < 60; n++) {
      const key = `key ${n % 20}`;
      const { peer } = await a.send("b", "x", { key });
      peers.set(key, (peers.get(key) ?? new Set()).add(peer));
    }
    expect([...peers.values()].every(({ size }) => size === 1)).toBe(true);
    expect(new Set([...peers.values()].flatMap((some) => [...some]))).toEqual(new Set(names));
  });

  it("is known of a stored message, and of one that was enqueued", async () => {
    const a = await world.started("a-1");
    const b = await world.started("b-1");
    await a.send("b", "first");
    await b.stop();
    expect((await a.send("b", "stored", { key: "x", messageId: "17" })).outcome).toBe("stored");
    const keys: unknown[] = [];
    await b.startWith(({ key, id, payload }) => void keys.push([Buffer.from(payload).toString(), key, id]));
    await eventually("it comes", () => keys.length === 1);
    const id = await enqueue(world, "b", "enqueued", { key: "y", messageId: "18" });
    await eventually("the other one too", () => keys.length === 2);
    expect(keys).toEqual([
      ["stored", "x", "17"],
      ["enqueued", "y", String(id)],
    ]);
  });
});

describe("an id", () => {
  it("is the sender's, else one that stays the same over attempts and as a dead letter that is tried again", async () => {
    const a = await world.started("a-1");
    const ids: (string | undefined)[] = [];
    let fails = true;
    await world.started("b-1", { defaults: { retry: { attempts: 3, delayMs: 1 } } }, ({ id }) => {
      ids.push(id);
      if (fails) throw new Error("not yet");
    });
    await a.send("b", "x");
    await world.deadLetters(1);
    expect(new Set(ids).size).toBe(1);
    expect(ids).toHaveLength(3);
    expect(ids[0]).toMatch(/^a-1:a:b-1\/\d+\/1$/);
    fails = false;
    // Which announces it: no poll is waited for.
    await using store = await openStore({ databaseUrl: world.url });
    await store.deadLetters.retry({ all: true });
    await eventually("it comes again", () => ids.length === 4);
    expect(new Set(ids).size).toBe(1);
    await a.send("b", "x", { messageId: "order-17" });
    await a.send("b", "x", { delivery: "at-most-once" });
    await eventually("both came", () => ids.length === 6);
    expect(ids.slice(4).sort()).toEqual(["order-17", undefined]);
  });
});

describe("a time to live", () => {
  it("makes a message that comes too late a dead letter, and drops one without a number", async () => {
    const a = await world.started("a-1");
    const b = await world.started("b-1");
    await a.send("b", "in time", { ttlMs: 60_000 });
    await b.stop();
    await a.send("b", "late", { ttlMs: 20 });
    const over = Date.now() + 20;
    await a.send("b", "of use");
    await eventually("it is too late", () => Date.now() > over);
    await b.record();
    await eventually("what is of use comes", () => b.texts.includes("of use"));
    expect(b.texts).toEqual(["in time", "of use"]);
    const letters = () => world.query("SELECT error_code, error_message, attempts FROM hawser_data.dead_letters");
    await eventually("the dead letter is committed", async () => (await letters()).length === 1);
    expect(await letters()).toEqual([
      { error_code: "expired", error_message: expect.stringMatching(/ \d+ ms before/), attempts: 1 },
    ]);
  });

  it("counts from when a message is due", async () => {
    const b = await world.started("b-1");
    const deliverAt = new Date(Date.now() + 300);
    await enqueue(world, "b", "x", { deliverAt, ttlMs: 3_600_000 });
    await eventually("it comes", () => b.texts.length === 1);
    const [, until] = b.received.all[0]!.headers.find(([name]) => name === "message-expires")!;
    expect(Number(until)).toBe(deliverAt.getTime() + 3_600_000);
  });
});

it("a Reject makes a message a dead letter at once", async () => {
  const a = await world.started("a-1");
  const b = await world.started("b-1", {}, () => {
    throw new Reject("no such article");
  });
  await a.send("b", "x");
  expect(b.texts).toEqual(["x"]);
  expect(await world.query("SELECT error_code, error_message, attempts FROM hawser_data.dead_letters")).toEqual([
    { error_code: "rejected", error_message: "no such article", attempts: 1 },
  ]);
});

it.each([
  [{ key: "" }, "key"],
  [{ key: "a\nb" }, "key"],
  [{ key: "x".repeat(1025) }, "key"],
  [{ messageId: "a b" }, "messageId"],
  [{ ttlMs: 0 }, "ttlMs 0"],
  [{ ttlMs: 0.5 }, "ttlMs 0.5"],
  [{ ttlMs: Number.POSITIVE_INFINITY }, "ttlMs Infinity"],
])("%o is refused", async (options, named) => {
  const a = await world.started("a-1");
  for (const send of [
    () => a.send("b", "x", options),
    () => enqueue({ query: () => expect.fail("asked") }, "b", "x", options),
  ]) {
    const error = await failure("invalid_argument", send());
    expect(error.message).toContain(named);
  }
});
