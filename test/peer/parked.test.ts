/**
 * Parked messages: one that waits long to be tried again holds up its key, and nothing else.
 */
import { describe, expect, it } from "vitest";
import { enqueue, type PeerOptions, type TransactionalMessage } from "../../src/jobs-and-peers/peer/index.js";
import { openStore } from "../../src/jobs-and-peers/peer-store/store.js";
import { forgetPeer, listPeers, withCommandDatabase } from "../../src/operating/operate/index.js";
import { eventually } from "../support/eventually.js";
import { failure } from "./support/errors.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { TestPeer } from "./support/world.js";

const world = sharedPeerWorld();

/** A message that fails is tried again after an hour. */
const long = {
  defaults: { retry: { attempts: 2, delayMs: 3_600_000 } },
  tuning: { busyAfterMs: 60_000 },
} satisfies Partial<PeerOptions>;

const parked = async (): Promise<(readonly [text: string, attempts: number])[]> => {
  const rows = await world.query<{ payload: Buffer; attempts: number }>(
    "SELECT payload, attempts FROM hawser_peer_data.parked_messages ORDER BY channel_id, epoch, number",
  );
  return rows.map(({ payload, attempts }) => [payload.toString(), attempts]);
};
const areParked = (...wanted: (readonly [text: string, attempts: number])[]): Promise<void> =>
  eventually(
    `${JSON.stringify(wanted)} are parked`,
    async () => JSON.stringify(await parked()) === JSON.stringify(wanted),
  );
const cursor = async (): Promise<number | undefined> =>
  (await world.query<{ number: number }>("SELECT number FROM hawser_peer_data.cursors"))[0]?.number;
const makeDue = () => world.query("UPDATE hawser_peer_data.parked_messages SET due_at = now()");
const started = (peer: TestPeer): string[] => peer.received.all.map(({ text, attempt }) => `${text} ${attempt}`);

describe.each([{ transactional: false }, { transactional: true }])(
  "a message that waits long to be tried again (transactional: $transactional)",
  ({ transactional }) => {
    const options = { ...long, transactional };
    let failing = new Set<string>();
    const handler = async (message: TransactionalMessage): Promise<void> => {
      const text = Buffer.from(message.payload).toString();
      if (transactional) await message.client.query("INSERT INTO public.ledger VALUES ($1)", [text]);
      if (failing.has(text)) throw new Error(`cannot take ${text}`);
    };
    const ledger = async (): Promise<string[]> =>
      (await world.query<{ text: string }>("SELECT text FROM public.ledger ORDER BY text")).map(({ text }) => text);
    // A handler has been called before its transaction is committed.
    const isLedger = (wanted: readonly string[]): Promise<void> =>
      eventually(`the ledger has ${wanted.join()}`, async () => (await ledger()).join() === wanted.join());
    const begin = async (): Promise<[a: TestPeer, b: TestPeer]> => {
      await world.query("DROP TABLE IF EXISTS public.ledger");
      await world.query("CREATE TABLE public.ledger (text text)");
      await world.query("GRANT ALL ON public.ledger TO PUBLIC");
      return [await world.started("a-1"), await world.started("b-1", options, handler)];
    };

    it("lets the cursor pass, holds up its key, also over a restart, and comes first when it is due", async () => {
      failing = new Set(["x 1"]);
      const [a, b] = await begin();
      const receipts = await Promise.all([
        a.send("b", "x 1", { key: "x", headers: { trace: "é" } }),
        a.send("b", "y 1", { key: "y" }),
        a.send("b", "x 2", { key: "x" }),
        a.send("b", "y 2", { key: "y" }),
      ]);
      expect(receipts.map(({ outcome }) => outcome)).toEqual(Array(4).fill("delivered"));
      await areParked(["x 1", 1], ["x 2", 0]);
      expect(await cursor()).toBe(4);
      const before = b.received.all.find(({ text }) => text === "x 1")!;
      await b.stop();
      const second = await world.started("b-1", options, handler);
      await Promise.all([a.send("b", "x 3", { key: "x" }), a.send("b", "y 3", { key: "y" })]);
      await areParked(["x 1", 1], ["x 2", 0], ["x 3", 0]);
      await second.received.length(1);
      expect(started(second)).toEqual(["y 3 1"]);
      await second.stop();
      failing.clear();
      await makeDue();
      const third = await world.started("b-1", options, handler);
      await third.received.length(3);
      await areParked();
      expect(started(third)).toEqual(["x 1 2", "x 2 1", "x 3 1"]);
      expect(third.received.all[0]).toEqual({ ...before, attempt: 2 });
      await a.send("b", "x 4", { key: "x" });
      await third.received.length(4);
      if (transactional) await isLedger(["x 1", "x 2", "x 3", "x 4", "y 1", "y 2", "y 3"]);
      await third.stop();
      const last = await world.started("b-1", options, handler);
      await a.send("b", "x 5", { key: "x" });
      await last.received.length(1);
      expect(started(last)).toEqual(["x 5 1"]);
    });

    it("stays parked behind an unfinished message over clean stops and takeovers, with all of its key", async () => {
      failing = new Set(["first", "x 1"]);
      const retry = { attempts: 9, delayMs: 3_600_000 };
      const patient = { ...options, defaults: { retry } };
      const keyed = ["x 1", "x 2", "x 3", "x 4", "x 5", "x 6"];
      const [a, early] = await begin();
      await early.stop();
      const b = await world.started("b-1", patient, handler);
      // Without a key it is not parked: the cursor stays before it, and the parked messages keep their marks.
      void a.send("b", "first").catch(() => undefined);
      for (const text of keyed) void a.send("b", text, { key: "x" }).catch(() => undefined);
      const all = keyed.map((text, index) => [text, index === 0 ? 1 : 0] as const);
      await areParked(...all);
      await Promise.all([a.stop(), b.stop()]);
      for (const _ of [2, 3]) {
        const again = await world.started("b-1", patient, handler);
        // It has read the stored messages up to the last one.
        await again.received.length(1);
        await again.stop();
        expect(await parked()).toEqual(all);
      }
      await using store = await openStore({ databaseUrl: world.url });
      await store.reassign({ from: "b-1", to: "b-2" });
      const heir = await world.started("b-2", patient, handler);
      await heir.received.length(1);
      await heir.stop();
      expect(await parked()).toEqual(all);
      failing.clear();
      await makeDue();
      const last = await world.started("b-2", patient, handler);
      await last.received.length(7);
      await areParked();
      expect(last.texts.filter((text) => text !== "first")).toEqual(keyed);
      if (transactional) await isLedger(["first", ...keyed]);
    });

    it("is a dead letter after its last attempt, and its key goes on", async () => {
      failing = new Set(["x 1"]);
      const [a, b] = await begin();
      await Promise.all([a.send("b", "x 1", { key: "x" }), a.send("b", "x 2", { key: "x" })]);
      await areParked(["x 1", 1], ["x 2", 0]);
      await b.stop();
      await makeDue();
      const again = await world.started("b-1", options, handler);
      await again.received.length(2);
      expect(started(again)).toEqual(["x 1 2", "x 2 1"]);
      expect(await world.deadLetters(1)).toMatchObject([{ payload: Buffer.from("x 1"), attempts: 2 }]);
      await areParked();
      if (transactional) await isLedger(["x 2"]);
    });

    it("has its starts counted after an unclean exit, and is given up when they were too many", async () => {
      failing = new Set(["x 1"]);
      const [a, b] = await begin();
      await a.send("b", "x 1", { key: "x" });
      await areParked(["x 1", 1]);
      await b.stop();
      await world.query("UPDATE hawser_peer_data.peers SET clean = false WHERE name = 'b-1'");
      await world.query("UPDATE hawser_peer_data.parked_messages SET due_at = now(), attempts = 2");
      const again = await world.started("b-1", options, handler);
      expect(await world.deadLetters(1)).toMatchObject([{ error_code: "handler_crashed" }]);
      await areParked();
      expect(started(again)).toEqual([]);
    });
  },
);

it("goes with its channel to who takes that over, and is found by a listener that has not heard of it", async () => {
  const fail = (): never => {
    throw new Error("no");
  };
  const b = await world.started("b-1", long, fail);
  const a = await world.started("a-1");
  await Promise.all([a.send("b", "x 1", { key: "x" }), a.send("b", "x 2", { key: "x" })]);
  await areParked(["x 1", 1], ["x 2", 0]);
  await Promise.all([a.stop(), b.stop()]);
  await using store = await openStore({ databaseUrl: world.url });
  expect(await store.ownedChannels("b-1")).toMatchObject([{ stored: 2, topics: ["b"] }]);
  expect(await store.absentListeners()).toMatchObject([{ name: "b-1" }]);
  expect(await store.channelsServedBy("b-1", ["b"])).toHaveLength(1);
  expect(await store.channelsWithMessages("b-1")).toEqual([]);
  await makeDue();
  expect(await store.channelsWithMessages("b-1")).toHaveLength(1);
  await store.reassign({ from: "b-1", to: "b-2" });
  const heir = await world.started("b-2", long);
  await heir.received.length(2);
  expect(started(heir)).toEqual(["x 1 2", "x 2 1"]);
  await areParked();
});

it("is not parked if it was sent without a key, or enqueued", async () => {
  const b = await world.started("b-1", long, ({ payload }) => {
    if (Buffer.from(payload).toString() === "bad") throw new Error("no");
  });
  const a = await world.started("a-1");
  await enqueue(world, "b", "bad", { key: "k" });
  await b.saw("attempt_failed");
  void a.send("b", "bad").catch(() => undefined);
  await b.saw("attempt_failed", ({ peer }) => peer === "a-1");
  void a.send("b", "keyed", { key: "k" }).catch(() => undefined);
  await b.received.find(({ text }) => text === "keyed");
  expect(await parked()).toEqual([]);
});

it("is counted for its listener, and keeps its channel from being forgotten", async () => {
  const b = await world.started("b-1", long, () => {
    throw new Error("no");
  });
  const a = await world.started("a-1");
  await a.send("b", "x", { key: "x" });
  await areParked(["x", 1]);
  await Promise.all([a.stop(), b.stop()]);
  const error = await failure("name_in_use", () =>
    withCommandDatabase(world.url, (database) => forgetPeer(database, "b-1")),
  );
  const peers = await withCommandDatabase(world.url, listPeers);
  expect(peers.map(({ name, parked }) => [name, parked])).toEqual([
    ["a-1", 0],
    ["b-1", 1],
  ]);
  expect(error.message).toContain("1 stored messages wait in its channels, some of them for this peer");
});
