/**
 * Messages for peers that are enqueued in a transaction: by `enqueue`, `sendTo` and the replies of transactional handlers.
 */
import pg from "pg";
import { afterEach, describe, expect, it } from "vitest";
import { enqueue, type TransactionalMessage } from "../../src/peer/index.js";
import { eventually } from "../support/eventually.js";
import { failure } from "./support/errors.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();
const clients: pg.Client[] = [];

async function connected(): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: world.url });
  await client.connect();
  clients.push(client);
  return client;
}
afterEach(async () => {
  for (const client of clients.splice(0)) await client.end();
});

describe("enqueue", () => {
  it("hands the message to a listener when the transaction has committed, with its headers", async () => {
    const b = await world.started("b-1");
    const client = await connected();
    await client.query("BEGIN");
    const headers = [
      ["x", "1"],
      ["x", "2"],
    ] as const;
    const receipt = await enqueue(client, { topic: "b", payload: "one", headers, messageId: "id-1" });
    expect(receipt).toEqual({ outcome: "enqueued", id: expect.any(BigInt) });
    await client.query("COMMIT");
    await b.received.length(1);
    expect(b.received.all).toEqual([
      {
        to: "b",
        from: "__#outbox",
        sender: "__#outbox",
        text: "one",
        headers: [
          ["x", "1"],
          ["x", "2"],
          ["message-id", "id-1"],
        ],
        attempt: 1,
        delivery: "at-least-once",
      },
    ]);
  });

  it("sends nothing of what is rolled back, and each key in the order of the commits", async () => {
    const b = await world.started("b-1");
    const [one, other] = [await connected(), await connected()];
    await one.query("BEGIN");
    await enqueue(one, { topic: "b", payload: "rolled back", key: "k" });
    await one.query("ROLLBACK");
    await one.query("BEGIN");
    await other.query("BEGIN");
    await other.query("SELECT pg_current_xact_id()");
    await enqueue(one, { topic: "b", payload: "1", key: "k" });
    const waiting = enqueue(other, { topic: "b", payload: "2", key: "k" });
    await one.query("COMMIT");
    await waiting;
    await other.query("COMMIT");
    await b.received.length(2);
    expect(b.texts).toEqual(["1", "2"]);
  });

  it("hands over at its time what is to be delivered later, and not what is cancelled", async () => {
    const b = await world.started("b-1");
    const client = await connected();
    const at = (ms: number) => new Date(Date.now() + ms);
    await client.query("BEGIN");
    await enqueue(client, { topic: "b", payload: "second", deliverAt: at(2_000) });
    await enqueue(client, { topic: "b", payload: "first", deliverAt: at(1_000), headers: { h: "1" }, key: "k" });
    await enqueue(client, { topic: "b", payload: "now", deliverAt: at(-1_000) });
    const { id } = await enqueue(client, { topic: "b", payload: "cancelled", deliverAt: at(1_500) });
    await client.query("SELECT hawser.outbox_cancel($1)", [id]);
    await client.query("COMMIT");
    await b.received.length(3);
    expect(b.texts).toEqual(["now", "first", "second"]);
    expect(b.received.all[1]?.headers).toEqual([
      ["h", "1"],
      ["message-key", "k"],
    ]);
  });

  it("takes a client that resolves with the rows themselves", async () => {
    const b = await world.started("b-1");
    const client = await connected();
    const query = async (text: string, values: unknown[]) => (await client.query(text, values)).rows;
    expect((await enqueue({ query }, { topic: "b", payload: "x" })).id).toBeTypeOf("bigint");
    await b.received.length(1);
  });

  it("refuses what cannot be sent before it asks Postgres", async () => {
    const query = () => Promise.reject(new Error("asked"));
    const refused = (message: object, code: "invalid_argument" | "internal_topic" = "invalid_argument") =>
      failure(code, enqueue({ query }, { topic: "b", payload: "x", ...message }));
    expect((await refused({ topic: "a:b" })).message).toContain("a:b");
    await refused({ topic: "__#x" }, "internal_topic");
    await refused({ payload: "" });
    expect((await refused({ key: "" })).message).toContain("key");
    expect((await refused({ messageId: "a b" })).message).toContain("messageId");
    await refused({ headers: { "a b": "" } });
    expect((await refused({ deliverAt: new Date(Number.NaN) })).message).toContain("deliverAt");
    expect((await refused({ ky: "" })).message).toContain("key");
    const rowless = { query: async () => undefined };
    expect((await failure("invalid_argument", enqueue(rowless, { topic: "b", payload: "x" }))).message).toContain(
      "rows",
    );
  });

  it("before anybody serves the topic keeps the messages until somebody does, in order", async () => {
    await world.started("a-1");
    const client = await connected();
    for (const text of ["1", "2", "3"]) await enqueue(client, { topic: "b", payload: text });
    await eventually("they wait", async () => (await world.storedMessages()) === 3);
    const b = await world.started("b-1");
    await b.received.length(3);
    expect(b.texts).toEqual(["1", "2", "3"]);
  });

  it("wakes a relay that sleeps", async () => {
    const b = await world.started("b-1");
    const client = await connected();
    await enqueue(client, { topic: "b", payload: "1" });
    await b.received.length(1);
    await eventually("the relay sleeps", async () => {
      const [row] = await world.query<{ asleep: number }>(
        "SELECT last_value AS asleep FROM hawser.outbox_state_peer_asleep_seq",
      );
      return row?.asleep === 2;
    });
    await enqueue(client, { topic: "b", payload: "2" });
    await b.received.length(2);
  });
});

describe("sendTo with a transaction", () => {
  it("enqueues, also to the peer's own topic", async () => {
    const [a, b] = await world.running("a-1", "b-1");
    const client = await connected();
    await client.query("BEGIN");
    expect(await a.sendTo("b", "x", { transaction: client, key: "k" })).toEqual({
      outcome: "enqueued",
      id: expect.any(BigInt),
    });
    await a.sendTo("a", "to itself", { transaction: client });
    expect(await world.storedMessages()).toBe(0);
    await client.query("COMMIT");
    await Promise.all([a.received.length(1), b.received.length(1)]);
  });

  it("refuses what has no meaning there, and what has none without one", async () => {
    const a = await world.started("a-1");
    const client = await connected();
    const beside = { transaction: client, delivery: "at-most-once" } as never;
    expect((await failure("invalid_argument", a.sendTo("b", "x", beside))).message).toContain("delivery");
    expect(
      (await failure("invalid_argument", a.sendAll("b", "x", { transaction: client } as never))).message,
    ).toContain("transaction");
    const without = { deliverAt: new Date() } as never;
    expect((await failure("invalid_argument", a.sendTo("b", "x", without))).message).toContain("transaction");
  });
});

describe("a transactional handler", () => {
  const transactional = { transactional: true, maxAttempts: 3, retryDelayMs: 5 };

  it("replies and sends with its commit, and each attempt before leaves nothing", async () => {
    await world.query("CREATE TABLE booked (what text)");
    const [a, c] = await world.running("a-1", "c-1");
    const receipts: unknown[] = [];
    const b = world.peer("b-1", transactional);
    await b.record(async (message: TransactionalMessage) => {
      await message.client.query("INSERT INTO booked VALUES ($1)", [Buffer.from(message.payload).toString()]);
      receipts.push(await message.reply(`done ${message.attempt}`));
      await b.sendTo("c", `told ${message.attempt}`, { transaction: message.client });
      if (message.attempt < 3) throw new Error("not yet");
    });
    await a.sendTo("b", "order");
    await Promise.all([a.received.length(1), c.received.length(1)]);
    expect([a.texts, c.texts]).toEqual([["done 3"], ["told 3"]]);
    expect(receipts.at(-1)).toEqual({ outcome: "enqueued", peer: "a-1", id: expect.any(BigInt) });
    expect(await world.query("SELECT what FROM booked")).toEqual([{ what: "order" }]);
  });

  it("cannot reply to what was enqueued", async () => {
    const codes: unknown[] = [];
    await world.started("b-1", transactional, async (message) => {
      codes.push((await failure("no_address", message.reply("x"))).code);
    });
    await world.started("d-1", {}, async (message) => {
      codes.push((await failure("no_address", message.reply("x"))).code);
    });
    const client = await connected();
    await enqueue(client, { topic: "b", payload: "x" });
    await enqueue(client, { topic: "d", payload: "x" });
    await eventually("both have tried", () => codes.length === 2);
  });
});

describe("the relay", () => {
  it("is one of the peers, and another one when that stops", async () => {
    const b = await world.started("b-1");
    const [c, client] = [await world.started("c-1"), await connected()];
    await enqueue(client, { topic: "c", payload: "1" });
    await c.received.length(1);
    await b.stop();
    await enqueue(client, { topic: "c", payload: "2" });
    await c.received.length(2);
  });
});
