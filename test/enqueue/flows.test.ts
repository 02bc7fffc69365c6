/** `after`: a message is handled once those that come first have been. */
import pg from "pg";
import { expect, it, onTestFinished } from "vitest";
import { cancel, cancelFlow, enqueue, enqueueBatch, job, waitFor } from "../../src/jobs-and-peers/peer/index.js";
import { failure } from "../peer/support/errors.js";
import { gate } from "../peer/support/gate.js";
import { sharedPeerWorld } from "../peer/support/shared-world.js";
import { eventually } from "../support/eventually.js";

const world = sharedPeerWorld();

async function connected(): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: world.url });
  await client.connect();
  onTestFinished(() => client.end());
  return client;
}

it("handles a message once all before it are handled, in handlers of any kind", async () => {
  const held = gate();
  const ended: string[] = [];
  const handle = async (text: string) => {
    if (text === "slow") await held.opened;
    ended.push(text);
  };
  const b = world.worker("b-1");
  await b.handle("b", async (message) => await handle(message.text()));
  await b.handle("c", { transactional: true }, async (message) => await handle(message.text()));
  await b.handleBatch("d", { transactional: true, maxMessages: 5, waitMs: 1 }, async (messages) => {
    for (const message of messages) await handle(message.text());
  });
  await b.start();
  const client = await connected();
  await client.query("BEGIN");
  const before = [
    await enqueue(client, "b", "slow"),
    await enqueue(client, "c", "fast"),
    ...(await enqueueBatch(client, "d", ["1", "2"])),
  ];
  const sum = await b.enqueue(client, "c", "sum", { after: before, key: "k" });
  await enqueue(client, "d", "end", { after: [sum], priority: 3 });
  await enqueue(client, "b", "at once", { after: [] });
  await client.query("COMMIT");
  await eventually("all that is not held is handled", () => ended.length === 4);
  expect(ended.toSorted()).toEqual(["1", "2", "at once", "fast"]);
  held.open();
  await eventually("all is handled", () => ended.length === 7);
  expect(ended.slice(4)).toEqual(["slow", "sum", "end"]);
});

it("holds or cancels what comes after a dead letter or a cancelled message", async () => {
  const b = await world.working("b-1", { defaults: { retry: { attempts: 1 } } }, (message) => {
    if (message.text() === "bad") throw new Error("no");
  });
  const client = await connected();
  await client.query("BEGIN");
  const later = await enqueue(client, "b", "later", { delayMs: 3_600_000 });
  const bad = await enqueue(client, "b", "bad");
  const held = await enqueue(client, "b", "held", { after: [bad, later] });
  const dropped = await enqueue(client, "b", "cancelled", { after: [bad, later], afterDead: "cancel" });
  await enqueue(client, "b", "also cancelled", { after: [dropped], afterDead: "cancel" });
  await client.query("COMMIT");
  const ids = async () =>
    (await world.query<{ id: string }>("SELECT id FROM hawser_data.queue WHERE later IS NOT NULL ORDER BY id")).map(
      ({ id }) => BigInt(id),
    );
  await eventually("two are cancelled", async () => (await ids()).length === 2);
  expect(await ids()).toEqual([later, held]);
  expect(await cancel(world, later)).toBe("cancelled");
  await eventually(
    "nothing is to be done",
    async () => (await world.query("SELECT FROM hawser_data.flow_ends")).length === 0,
  );
  expect(await cancel(world, held)).toBe("cancelled");
  expect(b.texts).toEqual(["bad"]);
});

it("is refused where it means nothing", async () => {
  const refused = async (options: object) => await failure("invalid_argument", enqueue(world, "b", "x", options));
  await refused({ after: 17n });
  await refused({ after: [17] });
  await refused({ after: ["seventeen"] });
  await refused({ after: [17n], uniqueKey: "k" });
  await refused({ after: [17n], afterDead: "drop" });
  await refused({ afterDead: "cancel" });
  await failure("invalid_argument", enqueue(world, { subject: "a" }, "x", { after: [17n] }));
  const inBatch = await failure("invalid_argument", enqueueBatch(world, "b", ["x"], { after: [17n] } as object));
  expect(inBatch.message).toMatch(
    /^"after" is not an option of a batch .*: enqueue one message after them, whose handler/,
  );
  await expect(enqueue(world, "b", "x", { after: [17n] })).rejects.toMatchObject({ code: "NA010" });
});

it("tells what a held message waits for, and cancels a flow as a whole", async () => {
  const client = await connected();
  await client.query("BEGIN");
  const [a, b] = [await enqueue(client, "b", "a"), await enqueue(client, "b", "b", { delayMs: 3_600_000 })];
  const sum = await enqueue(client, "b", "sum", { after: [a, b] });
  await client.query("COMMIT");
  const waitsFor = [a, b].map((id) => ({ id, state: "waiting" }));
  expect(await job(client, sum)).toMatchObject({ state: "held", dueAt: undefined, waitsFor });
  expect(await job(client, a)).toMatchObject({ state: "waiting", waitsFor: undefined });
  expect(await cancelFlow(client, String(b))).toEqual([a, b, sum].map((id) => ({ id, outcome: "cancelled" })));
  expect(await cancelFlow(client, b)).toEqual([]);
  await expect(cancelFlow(client, "x")).rejects.toMatchObject({ code: "invalid_argument" });
});

it("goes on when the expired first one of a flow is retried, which keeps its id and its result", async () => {
  const client = await connected();
  await client.query("BEGIN");
  const child = await enqueue(client, "b", "child", { ttlMs: 1, keepMs: 60_000 });
  const parent = await enqueue(client, "b", "parent", { after: [child], keepMs: 60_000 });
  await client.query("COMMIT");
  const b = await world.working("b-1", {}, (message) => message.text().toUpperCase());
  const [letter] = await world.deadLetters(1);
  await eventually("it is blocked", async () => (await job(client, parent)).waitsFor?.[0]?.state === "dead");
  expect(await job(client, child)).toMatchObject({ state: "dead", error: { code: "expired" } });
  await client.query("SELECT FROM hawser.retry_dead_letters($1)", [[letter!["id"]]]);
  expect(await waitFor(world.url, parent)).toMatchObject({ state: "done", result: "PARENT" });
  expect(await job(client, child)).toMatchObject({ state: "done", result: "CHILD", error: undefined });
  expect(b.texts).toEqual(["child", "parent"]);
});
