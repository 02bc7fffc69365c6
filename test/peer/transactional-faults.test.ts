/**
 * Transactional handlers that go wrong: none of it writes twice, stops a channel for good, or takes other peers along.
 */
import { expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { gate } from "./support/gate.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

const transactional = { transactional: true, maxAttempts: 2, retryDelayMs: 5 };

async function deadLetters(): Promise<string[]> {
  const rows = await world.query<{ error_message: string }>("SELECT error_message FROM hawser.dead_letters");
  return rows.map(({ error_message }) => error_message);
}

async function cursor(): Promise<number | undefined> {
  return (await world.query<{ v: number }>("SELECT v FROM hawser.conn_mess_number"))[0]?.v;
}

it("a statement's error that the handler swallowed is a failed attempt", async () => {
  await world.query("CREATE TABLE taken (id int PRIMARY KEY)");
  await world.query("INSERT INTO taken VALUES (1)");
  const a = await world.started("a-1");
  let calls = 0;
  await world.started("b-1", transactional, async ({ client }) => {
    calls += 1;
    await client.query("INSERT INTO taken VALUES (1)").catch(() => undefined);
  });
  await a.sendTo("b", "x");
  await eventually("it is given up", async () => (await deadLetters()).length === 1);
  expect(calls).toBe(2);
});

it("a constraint that fails at the commit is a failed attempt", async () => {
  await world.query("CREATE TABLE parent (id int PRIMARY KEY)");
  await world.query("CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)");
  const a = await world.started("a-1");
  let calls = 0;
  await world.started("b-1", transactional, async ({ client }) => {
    calls += 1;
    await client.query("INSERT INTO child VALUES (7)");
  });
  await a.sendTo("b", "x");
  await eventually("it is given up", async () => (await deadLetters()).length === 1);
  expect(calls).toBe(2);
  expect((await deadLetters())[0]).toContain("foreign key");
});

it("peers of one process leave a connection of their pool to everybody else", async () => {
  const pool = { poolSize: 2 };
  const a = await world.started("a-1", pool);
  const held = gate();
  let running = 0;
  const handler = async () => {
    running += 1;
    await held.opened;
  };
  await world.started("b-1", { ...transactional, ...pool }, handler);
  await world.started("c-1", { ...transactional, ...pool }, handler);
  const sends = ["b", "c", "b", "c"].map((topic) => a.sendTo(topic, "x"));
  const receipts = await Promise.all(sends);
  expect(receipts.map(({ outcome }) => outcome)).toEqual(["stored", "stored", "stored", "stored"]);
  await eventually("a handler runs", () => running > 0);
  // The other connection is everybody else's.
  expect(await a.pendingCount()).toBe(4);
  expect(running).toBe(1);
  held.open();
});

it("a handler that outlives a stop does not end the next run", async () => {
  const a = await world.started("a-1");
  const held = gate();
  const ended = gate();
  let calls = 0;
  const handler = async () => {
    calls += 1;
    if (calls > 1) return;
    await held.opened;
    ended.open();
  };
  const b = world.peer("b-1", transactional);
  await b.run(handler);
  const sent = a.sendTo("b", "x");
  await eventually("the handler runs", () => calls === 1);
  await b.stop({ deadlineMs: 0 });
  await b.run(handler);
  held.open();
  await ended.opened;
  await sent;
  await eventually("the message is done", async () => (await cursor()) === 1);
  expect((await b.sendTo("a", "still here")).peer).toBe("a-1");
  expect(b.statuses.all.filter(({ kind }) => kind === "name_lost")).toEqual([]);
});

it("what a handler still does after it has thrown writes nothing", async () => {
  await world.query("CREATE TABLE ledger (what text)");
  const a = await world.started("a-1");
  let late: unknown;
  await world.started("b-1", transactional, async ({ client, attempt }) => {
    const writes = async () => {
      await client.query("SELECT pg_sleep(0.05)");
      await client.query("INSERT INTO ledger VALUES ($1)", [`attempt ${attempt}`]);
    };
    const written = writes().catch((error) => {
      late = error;
    });
    if (attempt === 1) throw new Error("no");
    await written;
  });
  await a.sendTo("b", "x");
  await eventually("it is done", async () => (await cursor()) === 1);
  await eventually("the first attempt's statement was refused", () => late !== undefined);
  expect(await world.query("SELECT what FROM ledger")).toEqual([{ what: "attempt 2" }]);
});

it("an at-most-once message whose connection breaks is handled once", async () => {
  const a = await world.started("a-1");
  let calls = 0;
  const b = await world.started("b-1", transactional, async ({ client, delivery }) => {
    if (delivery !== "at-most-once") return;
    calls += 1;
    await client.query("SELECT pg_terminate_backend(pg_backend_pid())");
  });
  await a.sendTo("b", "first");
  await a.sendTo("b", "x", { delivery: "at-most-once" });
  expect(await b.saw("dead_letter")).toMatchObject({ stored: false });
  await a.sendTo("b", "last");
  await b.received.find(({ text }) => text === "last");
  expect(calls).toBe(1);
});

it("a handler that was given up in a long statement does not keep the channel for as long as that takes", async () => {
  const a = await world.started("a-1");
  const starts: number[] = [];
  await world.started("b-1", { ...transactional, handlerTimeoutMs: 100 }, async ({ client }) => {
    starts.push(performance.now());
    if (starts.length === 1) await client.query("SELECT pg_sleep(60)");
  });
  await a.sendTo("b", "x");
  await eventually("it is done", async () => (await cursor()) === 1);
  expect(starts).toHaveLength(2);
  expect(starts[1]! - starts[0]!).toBeLessThan(30_000);
});
