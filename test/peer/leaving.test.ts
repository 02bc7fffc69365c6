/**
 * Messages that cannot be handled at once: they leave their channel for the queue, and what has their key follows them.
 */
import pg from "pg";
import { describe, expect, it } from "vitest";
import type { PeerOptions, TransactionalMessage } from "../../src/jobs-and-peers/peer/index.js";
import { eventually } from "../support/eventually.js";
import { gate } from "./support/gate.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { TestPeer } from "./support/world.js";

const world = sharedPeerWorld();

/** A message that fails is tried again after an hour. */
const long = {
  defaults: { retry: { attempts: 2, delayMs: 3_600_000 } },
  tuning: { busyAfterMs: 60_000 },
} satisfies Partial<PeerOptions>;

/** Messages of the queue in order, with their failed attempts. */
const rows = async (): Promise<string[]> =>
  (
    await world.query<{ row: string }>(
      "SELECT convert_from(payload, 'UTF8') || ' ' || coalesce(attempts, 0) AS row FROM hawser_data.queue ORDER BY rank",
    )
  ).map(({ row }) => row);
const areRows = (...wanted: string[]): Promise<void> =>
  eventually(`the queue has ${wanted.join(", ")}`, async () => (await rows()).join() === wanted.join());
const cursor = async (): Promise<number | undefined> =>
  (await world.query<{ number: number }>("SELECT number FROM hawser_peer_data.cursors"))[0]?.number;
const passes = (number: number): Promise<void> =>
  eventually(`the cursor has passed ${number}`, async () => (await cursor()) === number);
const makeDue = () => world.query("UPDATE hawser_data.queue SET due_at = now() WHERE due_at IS NOT NULL");
const started = (peer: TestPeer): string[] => peer.received.all.map(({ text, attempt }) => `${text} ${attempt}`);
/** Ends the name of a process that goes on without knowing, as one that is killed: nothing of it is committed any more. */
const endName = (name: string) => world.query("SELECT FROM hawser.end_ownership($1, true)", [name]);

describe.each([{ transactional: false }, { transactional: true }])(
  "a message that fails (transactional: $transactional)",
  ({ transactional }) => {
    const options = { ...long, transactional };
    let failing = new Set<string>();
    const handler = async (message: TransactionalMessage): Promise<void> => {
      const text = message.text();
      if (transactional) await message.client.query("INSERT INTO public.ledger VALUES ($1)", [text]);
      if (failing.has(text)) throw new Error(`cannot take ${text}`);
    };
    const ledger = async (): Promise<string[]> =>
      (await world.query<{ text: string }>("SELECT text FROM public.ledger ORDER BY text")).map(({ text }) => text);
    const begin = async (): Promise<[a: TestPeer, b: TestPeer]> => {
      await world.query("CREATE TABLE public.ledger (text text)");
      return [await world.started("a-1"), await world.started("b-1", options, handler)];
    };

    it("holds up its key alone, also over a restart of its listener, and comes first when it is due", async () => {
      failing = new Set(["x 1"]);
      const [a, b] = await begin();
      await Promise.all([
        a.send("b", "x 1", { key: "x", headers: { trace: "é" } }),
        a.send("b", "y 1", { key: "y" }),
        a.send("b", "x 2", { key: "x" }),
        a.send("b", "y 2", { key: "y" }),
        a.send("b", "z"),
      ]);
      await areRows("x 1 1", "x 2 0");
      await passes(5);
      await b.stop();
      const second = await world.started("b-1", options, handler);
      await Promise.all([a.send("b", "x 3", { key: "x" }), a.send("b", "y 3", { key: "y" })]);
      await second.received.length(1);
      await areRows("x 1 1", "x 2 0", "x 3 0");
      expect(started(second)).toEqual(["y 3 1"]);
      await second.stop();
      failing.clear();
      const third = await world.started("b-1", options, handler);
      await makeDue();
      await world.query("SELECT hawser.wake_topics('{b}')");
      await third.received.length(3);
      expect(started(third)).toEqual(["x 1 2", "x 2 1", "x 3 1"]);
      expect(third.received.all[0]).toMatchObject({ sender: "a-1", senderTopic: "a", enqueuedBy: undefined });
      expect(third.received.all[0]!.headers).toContainEqual(["trace", "é"]);
      await world.handled();
      if (transactional) expect(await ledger()).toEqual(["x 1", "x 2", "x 3", "y 1", "y 2", "y 3", "z"]);
    });

    it("is a dead letter after its last attempt, and its key goes on", async () => {
      failing = new Set(["x 1"]);
      const [a, b] = await begin();
      await Promise.all([a.send("b", "x 1", { key: "x" }), a.send("b", "x 2", { key: "x" })]);
      await areRows("x 1 1", "x 2 0");
      await b.stop();
      await makeDue();
      const again = await world.started("b-1", options, handler);
      await again.received.length(2);
      expect(started(again)).toEqual(["x 1 2", "x 2 1"]);
      expect(await world.deadLetters(1)).toMatchObject([{ payload: Buffer.from("x 1"), attempts: 2 }]);
      await world.handled();
      if (transactional) expect(await ledger()).toEqual(["x 2"]);
    });
  },
);

it("a message without a key that fails holds up those of its channel without one, and no others", async () => {
  const b = await world.started("b-1", long, (message) => {
    if (message.text() === "1" && message.attempt === 1) throw new Error("no");
  });
  const [a, c] = await Promise.all([world.started("a-1"), world.started("c-1")]);
  await Promise.all([a.send("b", "1"), a.send("b", "2"), a.send("b", "keyed", { key: "k" }), c.send("b", "other")]);
  await areRows("1 1", "2 0");
  await eventually("the others are handled", () => b.texts.length === 3);
  expect(b.texts.toSorted()).toEqual(["1", "keyed", "other"]);
  await b.stop();
  await makeDue();
  await b.record();
  await b.received.length(5);
  expect(b.texts.slice(3)).toEqual(["1", "2"]);
});

it("a key whose messages of the queue are handled is delivered to its listener at once again", async () => {
  const a = await world.started("a-1");
  const quick = { defaults: { retry: { attempts: 2, delayMs: 1 } } };
  const b = await world.started("b-1", quick, (message) => {
    if (message.text() === "x 1" && message.attempt === 1) throw new Error("not yet");
  });
  expect((await a.send("b", "x 1", { key: "x" })).outcome).toBe("stored");
  await world.handled();
  const [before] = await world.query<{ last: number }>("SELECT last_value AS last FROM hawser_data.outbox_id_seq");
  let sent = 0;
  await eventually("it is delivered", async () => {
    sent += 1;
    return (await a.send("b", `x ${sent + 1}`, { key: "x" })).outcome === "delivered";
  });
  await b.received.length(sent + 2);
  expect(b.texts).toEqual(["x 1", ...Array.from({ length: sent + 1 }, (_, n) => `x ${n + 1}`)]);
  const [after] = await world.query<{ last: number }>("SELECT last_value AS last FROM hawser_data.outbox_id_seq");
  // No row was written for the last one, and the channel knows that it has none.
  expect(after!.last - before!.last).toBe(sent - 1);
  await eventually(
    "the channel has no rows",
    async () => (await world.query("SELECT FROM hawser_peer_data.cursors WHERE has_rows")).length === 0,
  );
});

describe("a handler that takes long", () => {
  it("lets the cursor pass what was handled behind it, which a process that ends has not to handle again", async () => {
    const a = await world.started("a-1");
    const held = gate();
    const b = await world.started("b-1", {}, async (message) => {
      if (message.text() === "slow") await held.opened;
    });
    const slow = a.send("b", "slow", { key: "slow" });
    const others = ["1", "2", "3"].map((text) => a.send("b", text, { key: text }));
    await passes(4);
    expect((await slow).outcome).toBe("stored");
    await Promise.all(others);
    await areRows("slow 0");
    await endName("b-1");
    await b.saw("name_lost");
    const again = await world.started("b-1");
    await again.received.length(1);
    held.open();
    await world.handled();
    expect(again.texts).toEqual(["slow"]);
    expect(await world.deadLetters(0)).toEqual([]);
  });

  it("goes on with the row of its message, which ends with it and is handled once", async () => {
    const a = await world.started("a-1");
    const held = gate();
    const b = await world.started("b-1", {}, async (message) => {
      if (message.text() === "slow") await held.opened;
    });
    const sent = ["slow", "behind it"].map((text) => a.send("b", text, { key: "slow" }));
    sent.push(a.send("b", "other", { key: "other" }));
    await passes(3);
    await areRows("slow 0", "behind it 0");
    expect(b.texts.toSorted()).toEqual(["other", "slow"]);
    held.open();
    await Promise.all(sent);
    await world.handled();
    expect(b.texts.slice(2)).toEqual(["behind it"]);
  });

  it("gives its slot to others when it has ended, also while Postgres has not answered that its message has left", async () => {
    const a = await world.started("a-1");
    const [slow, both] = [gate(), gate()];
    const b = await world.started("b-1", { concurrency: 2 }, async (message) => {
      const text = message.text();
      if (text === "slow") await slow.opened;
      if (text === "one" || text === "two") await both.opened;
    });
    const session = new pg.Client({ connectionString: world.url });
    await session.connect();
    await session.query("BEGIN");
    await session.query("LOCK TABLE hawser_data.queue IN SHARE MODE");
    const sent = ["slow", "other"].map((key) => a.send("b", key, { key }));
    await eventually("the commit with the slow one waits", async () => {
      const waits = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'hawser_data.queue'::regclass";
      return (await world.query(waits)).length > 0;
    });
    slow.open();
    sent.push(...["one", "two"].map((key) => a.send("b", key, { key })));
    await eventually("both slots are used", () => b.texts.length === 4);
    await session.query("COMMIT");
    await session.end();
    both.open();
    await Promise.all(sent);
    await world.handled();
    expect(b.texts).toHaveLength(4);
  });

  it("and then fails counts as the first attempt", async () => {
    const a = await world.started("a-1");
    const held = gate();
    const b = await world.started("b-1", { defaults: { retry: { attempts: 2, delayMs: 1 } } }, async (message) => {
      if (message.text() !== "slow") return;
      await held.opened;
      throw new Error("no");
    });
    void a.send("b", "slow", { key: "slow" });
    await a.send("b", "other", { key: "other" });
    await areRows("slow 0");
    held.open();
    expect(await world.deadLetters(1)).toMatchObject([{ attempts: 2, error_code: "handler_failed" }]);
    expect(started(b).toSorted()).toEqual(["other 1", "slow 1", "slow 2"]);
  });

  it("and is cut off by a stop is repeated as the same attempt, and nothing that ended behind it is", async () => {
    const a = await world.started("a-1");
    const b = await world.started("b-1", {}, async (message) => {
      if (message.text() === "slow") await new Promise(() => undefined);
    });
    const sent = [a.send("b", "slow", { key: "slow" }), a.send("b", "behind it", { key: "slow" })];
    sent.push(a.send("b", "other", { key: "other" }));
    await eventually("two were begun", () => b.texts.length === 2);
    await b.stop({ timeoutMs: 0 });
    await Promise.all(sent);
    const again = await world.started("b-1");
    await again.received.length(2);
    await world.handled();
    expect(started(again)).toEqual(["slow 1", "behind it 1"]);
  });
});

it("a message that fails while its listener stops is tried again after the next start, and no attempt is lost", async () => {
  const a = await world.started("a-1");
  const held = gate();
  const b = await world.started("b-1", long, async (message) => {
    if (message.attempt > 1) return;
    await held.opened;
    throw new Error("no");
  });
  const sent = ["1", "2"].map((text) => a.send("b", text));
  await b.received.length(1);
  const stopped = b.stop();
  held.open();
  await stopped;
  await Promise.all(sent);
  expect((await rows())[0]).toBe("1 1");
  await makeDue();
  await b.record(() => undefined);
  await b.received.length(3);
  expect(started(b)).toEqual(["1 1", "1 2", "2 1"]);
  await world.handled();
});

it("the first messages of a channel are suspects after an unclean exit, and none after a clean stop", async () => {
  const a = await world.started("a-1");
  const b = await world.started("b-1");
  await a.send("b", "1");
  await b.stop();
  await a.send("b", "2");
  await b.record();
  await passes(2);
  await endName("b-1");
  await b.saw("name_lost");
  const again = await world.started("b-1");
  await a.send("b", "3");
  await again.received.length(1);
  await world.handled();
  const cameFromQueue = ({ received }: TestPeer) =>
    received.all.map(({ headers }) => headers.some(([name]) => name === "message-origin"));
  expect([...cameFromQueue(b), ...cameFromQueue(again)]).toEqual([false, false, true]);
});
