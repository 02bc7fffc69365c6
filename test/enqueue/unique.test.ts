/** `uniqueKey`: what waits with it is handled once, and sees what those wrote who relied on it. */
import pg from "pg";
import { expect, it } from "vitest";
import { enqueue, enqueueBatch } from "../../src/jobs-and-peers/peer/index.js";
import { failure } from "../peer/support/errors.js";
import { gate } from "../peer/support/gate.js";
import { sharedPeerWorld } from "../peer/support/shared-world.js";
import { eventually } from "../support/eventually.js";

const world = sharedPeerWorld();
const nothingIsLeft = () => eventually("nothing is left", async () => (await world.storedMessages()) === 0);

async function connected(): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: world.url });
  await client.connect();
  return client;
}

it("drops what follows while one waits, and not while it runs", async () => {
  const held = gate();
  const b = await world.working("b-1", { concurrency: 1, transactional: true }, () => held.opened);
  const first = await enqueue(world, "b", "first", { uniqueKey: "k" });
  await b.received.length(1);
  const second = await enqueue(world, "b", "second", { uniqueKey: "k" });
  expect(second).not.toBe(first);
  expect(await enqueue(world, "b", "third", { uniqueKey: { key: "k", mode: "keep" } })).toBe(second);
  expect(await enqueue(world, "b", "fourth", { uniqueKey: { key: "k", mode: "replace" } })).toBe(second);
  held.open();
  await nothingIsLeft();
  expect(b.texts).toEqual(["first", "fourth"]);
  expect(
    await world.query("SELECT id FROM hawser_data.unique_keys UNION SELECT id FROM hawser_data.unique_locks"),
  ).toEqual([]);
});

it("drops what follows while one runs, if asked to", async () => {
  const held = gate();
  const b = await world.working("b-1", {}, () => held.opened);
  const running = { key: "k", while: "running" } as const;
  const first = await enqueue(world, "b", "first", { uniqueKey: running });
  await b.received.length(1);
  expect(await enqueue(world, "b", "second", { uniqueKey: running })).toBe(first);
  held.open();
  await nothingIsLeft();
  await enqueue(world, "b", "third", { uniqueKey: running });
  await nothingIsLeft();
  expect(b.texts).toEqual(["first", "third"]);
});

it("what waits does not begin before the transactions end that rely on it, and others do", async () => {
  await world.query("CREATE TABLE written (what text)");
  const seen: string[][] = [];
  const client = await connected();
  await client.query("BEGIN; INSERT INTO written VALUES ('by the one that relies on it')");
  const paused = world.worker("b-1");
  const id = await enqueue(world, "b", "x", { uniqueKey: "k" });
  expect(await enqueue(client, "b", "y", { uniqueKey: "k" })).toBe(id);
  await paused.record(async ({ payload }) => {
    if (Buffer.from(payload).toString() !== "x") return;
    seen.push((await world.query<{ what: string }>("SELECT what FROM written")).map(({ what }) => what));
  });
  await enqueueBatch(world, "b", ["1", "2"]);
  await paused.received.length(2);
  await eventually("it is put off", async () => {
    return (await world.query("SELECT FROM hawser_data.queue WHERE due_at > now() OR attempts > 0")).length === 1;
  });
  await client.query("COMMIT");
  await client.end();
  await nothingIsLeft();
  expect(seen).toEqual([["by the one that relies on it"]]);
  expect(paused.received.all.find(({ text }) => text === "x")?.attempt).toBe(1);
});

it("debounces with deliverAt, and is enqueued by a peer, which gets the reply", async () => {
  const a = await world.started("a-1");
  const b = await world.working("b-1", {}, (message) => message.reply(`${message.text()} done`));
  const uniqueKey = { key: "k", mode: "replace" } as const;
  const client = await connected();
  const ids = [];
  for (const [nth, ms] of [60_000, 60_000, 50].entries())
    ids.push(await a.enqueue(client, "b", `${nth}`, { uniqueKey, deliverAt: new Date(Date.now() + ms) }));
  await client.end();
  expect(new Set(ids).size).toBe(1);
  await a.received.length(1);
  expect([b.texts, a.texts]).toEqual([["2"], ["2 done"]]);
});

it("works in batches, one by one", async () => {
  const batches: string[][] = [];
  const b = world.worker("b-1");
  await b.handleBatch("b", { transactional: true, maxMessages: 2, waitMs: 60_000 }, (messages) => {
    batches.push(messages.map((message) => message.text()));
  });
  await b.start();
  for (const key of ["k", "l", "k"]) await enqueue(world, "b", key, { uniqueKey: key });
  await eventually("they are handled", () => batches.length > 0);
  expect(batches[0]!.toSorted()).toEqual(["k", "l"]);
});

it("is refused where it means nothing", async () => {
  const refused = async (options: object) => await failure("invalid_argument", enqueue(world, "b", "x", options));
  await refused({ uniqueKey: "k", key: "k" });
  await refused({ uniqueKey: "k", all: true });
  await refused({ uniqueKey: "" });
  await refused({ uniqueKey: 17 });
  await refused({ uniqueKey: { key: "k", mode: "drop" } });
  await refused({ uniqueKey: { key: "k", while: "always" } });
  await refused({ uniqueKey: { key: "k", mode: "replace", while: "running" } });
  await refused({ uniqueKey: { key: "k", until: "running" } });
  await failure("invalid_argument", enqueue(world, { subject: "a" }, "x", { uniqueKey: "k" }));
  await failure("invalid_argument", enqueueBatch(world, "b", ["x"], { uniqueKey: "k" } as object));
});
