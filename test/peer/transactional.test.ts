/**
 * Transactional handlers: what they write at `message.client` and the message's being done are one commit.
 */
import { beforeEach, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { failure } from "./support/errors.js";
import { gate } from "./support/gate.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

const transactional = { transactional: true, maxAttempts: 3, retryDelayMs: 5 };

beforeEach(() => world.query("CREATE TABLE ledger (id bigserial, what text)"));

async function ledger(): Promise<string[]> {
  return (await world.query<{ what: string }>("SELECT what FROM ledger ORDER BY id")).map(({ what }) => what);
}

describe("a transactional handler", () => {
  it("commits what it wrote together with the cursor, and the sender hears delivered", async () => {
    const a = await world.started("a-1");
    await world.started("b-1", transactional, async ({ client, payload }) => {
      await client.query("INSERT INTO ledger (what) VALUES ($1)", [Buffer.from(payload).toString()]);
    });
    const receipts = await Promise.all(["x", "y", "z"].map((text) => a.sendTo("b", text)));
    expect(receipts.map(({ peer }) => peer)).toEqual(["b-1", "b-1", "b-1"]);
    await eventually("all are in the ledger", async () => (await ledger()).length === 3);
    expect(await ledger()).toEqual(["x", "y", "z"]);
    expect(await world.query("SELECT v FROM hawser.conn_mess_number")).toEqual([{ v: 3 }]);
  });

  it("leaves nothing behind when it throws, and what it wrote once when it is tried again", async () => {
    const a = await world.started("a-1");
    await world.started("b-1", transactional, async ({ client, attempt }) => {
      await client.query("INSERT INTO ledger (what) VALUES ($1)", [`attempt ${attempt}`]);
      if (attempt < 3) throw new Error("not yet");
    });
    await a.sendTo("b", "x");
    await eventually("it is done", async () => (await ledger()).length > 0);
    expect(await ledger()).toEqual(["attempt 3"]);
  });

  it("that never succeeds makes a dead letter, and the next message begins after that is committed", async () => {
    const a = await world.started("a-1");
    let deadAtNext: unknown;
    const b = await world.started("b-1", transactional, async ({ client, payload }) => {
      if (payload[0] === 0x78) throw new Error("never");
      deadAtNext = (await client.query("SELECT error_message FROM hawser.dead_letters")).rows;
    });
    await Promise.all([a.sendTo("b", "x"), a.sendTo("b", "y")]);
    await b.received.find(({ text }) => text === "y");
    await eventually("the second has looked", () => deadAtNext !== undefined);
    expect(deadAtNext).toEqual([{ error_message: "Error: never" }]);
  });

  it("has a transaction for an at-most-once message, too", async () => {
    const a = await world.started("a-1");
    const b = await world.started("b-1", transactional, async ({ client, payload }) => {
      await client.query("INSERT INTO ledger (what) VALUES ($1)", [Buffer.from(payload).toString()]);
      if (payload[0] === 0x78) throw new Error("no");
    });
    await a.sendTo("b", "first");
    await a.sendTo("b", "x", { delivery: "at-most-once" });
    expect(await b.saw("dead_letter")).toMatchObject({ stored: false, code: "handler_failed" });
    await a.sendTo("b", "y", { delivery: "at-most-once" });
    await eventually("the good one is there", async () => (await ledger()).includes("y"));
    expect(await ledger()).toEqual(["first", "y"]);
  });

  it("that takes longer than handlerTimeoutMs writes nothing any more", async () => {
    const a = await world.started("a-1");
    const late: unknown[] = [];
    const held = gate();
    await world.started("b-1", { ...transactional, handlerTimeoutMs: 50 }, async ({ client, attempt }) => {
      if (attempt > 1) return;
      await held.opened;
      await client.query("INSERT INTO ledger (what) VALUES ('late')").catch((error) => late.push(error));
    });
    await a.sendTo("b", "x");
    await eventually("the message is done", async () => {
      const [row] = await world.query<{ v: number }>("SELECT v FROM hawser.conn_mess_number");
      return row?.v === 1;
    });
    held.open();
    await eventually("the late statement has failed", () => late.length === 1);
    expect(await ledger()).toEqual([]);
  });

  it("whose connection breaks is tried again, and that is no attempt", async () => {
    const a = await world.started("a-1");
    let broken = 0;
    const attempts: number[] = [];
    await world.started("b-1", { ...transactional, maxAttempts: 1 }, async ({ client, attempt }) => {
      attempts.push(attempt);
      await client.query("INSERT INTO ledger (what) VALUES ('x')");
      if (broken++ < 3) await client.query("SELECT pg_terminate_backend(pg_backend_pid())");
    });
    await a.sendTo("b", "x");
    await eventually("it is in the ledger", async () => (await ledger()).length > 0);
    expect(await ledger()).toEqual(["x"]);
    expect(attempts).toEqual([1, 1, 1, 1]);
    expect(await world.query("SELECT FROM hawser.dead_letters")).toEqual([]);
  });

  it("drains what was stored in order, each once", async () => {
    const a = await world.started("a-1");
    const b = world.peer("b-1", transactional);
    await b.run();
    const texts = Array.from({ length: 50 }, (_, index) => String(index));
    await Promise.all(texts.map((text) => a.sendTo("b", text)));
    await b.stop();
    await b.run(async ({ client, payload }) => {
      await client.query("INSERT INTO ledger (what) VALUES ($1)", [Buffer.from(payload).toString()]);
    });
    await eventually("all are there", async () => (await ledger()).length >= texts.length);
    expect(await ledger()).toEqual(texts);
    expect(await world.storedMessages()).toBe(0);
  });
});

describe("without transactional: true", () => {
  it("message.client says what is missing", async () => {
    const a = await world.started("a-1");
    const seen: unknown[] = [];
    await world.started("b-1", {}, async (message) => {
      seen.push(await failure("not_supported", () => message.client));
    });
    await a.sendTo("b", "x");
    await eventually("the handler has tried", () => seen.length === 1);
    expect(String(seen[0])).toContain("transactional: true");
  });
});

it("transactional handlers need a pool of at least two connections", async () => {
  const error = await failure("invalid_argument", () => world.peer("b-1", { transactional: true, poolSize: 1 }));
  expect(error.message).toContain("poolSize 1");
});
