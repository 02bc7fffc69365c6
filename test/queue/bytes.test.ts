/** How many bytes a worker takes at a time, and that those of one role do not delay another's messages. */
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { queueFunctions } from "../../generated/ts/rows/queue.js";
import { type World, world } from "../store/support/world.js";
import { enqueue, TestWorker, textsOf } from "./support/test-worker.js";

let w: World;
let client: pg.Client;

beforeAll(async () => {
  w = await world();
  client = w.operator;
});
afterAll(() => w?.[Symbol.asyncDispose]());
beforeEach(() => client.query("TRUNCATE hawser_data.queue, hawser_data.workers"));

const numbers = (count: number): string[] => Array.from({ length: count }, (_, n) => `${n}`);
const maxBytes = 10_000;
const taken = (worker: TestWorker, most = 100) =>
  queueFunctions(client).take({ worker: worker.id, most, maxBytes: BigInt(maxBytes), topics: [], after: null });

it("long messages of one role leave their turns to those of another", async () => {
  const worker = await TestWorker.open(client);
  await enqueue(client, "t", Array(100).fill("x".repeat(20_000)), { role: "mal" });
  await enqueue(client, "t", numbers(200));
  const turns: string[] = [];
  for (let left = 200; left > 0; ) {
    const messages = await worker.take({ maxBytes, looksBehind: true });
    const own = messages.filter(({ role }) => role === "shop");
    left -= own.length;
    turns.push(own.length > 0 ? "shop" : "mal");
    await worker.doneBatch(...messages);
  }
  // A coin is tossed before each take.
  expect(turns.filter((turn) => turn === "shop").length).toBe(2);
  expect(turns.length).toBeLessThan(40);
});

it("messages of middle length share the bytes of a take with many short ones", async () => {
  const worker = await TestWorker.open(client);
  await enqueue(client, "t", Array(20).fill("x".repeat(200_000)), { role: "mal" });
  await enqueue(client, "t", numbers(50));
  const messages = await worker.take({ maxBytes: 1_000_000, looksBehind: true });
  expect(messages.filter(({ role }) => role === "mal").length).toBeLessThanOrEqual(4);
  expect(messages.filter(({ role }) => role === "shop").length).toBeGreaterThan(4);
});

it("a message behind a long one of its role does not overtake it", async () => {
  const worker = await TestWorker.open(client);
  await enqueue(client, "t", ["first", "x".repeat(20_000), "last"]);
  expect(textsOf(await worker.take({ maxBytes }))).toEqual(["first"]);
  expect((await worker.take({ maxBytes })).map(({ payload }) => payload.length)).toEqual([20_000]);
  expect(textsOf(await worker.take({ maxBytes }))).toEqual(["last"]);
});

it("says that the limit of bytes has left some, and nothing else", async () => {
  const worker = await TestWorker.open(client);
  await enqueue(client, "t", ["a", "x".repeat(20_000)]);
  expect(new Set((await taken(worker)).map(({ hasMore }) => hasMore))).toEqual(new Set([true]));
  expect(new Set((await taken(worker)).map(({ hasMore }) => hasMore))).toEqual(new Set([false]));
  await enqueue(client, "t", numbers(5));
  expect(new Set((await taken(worker, 3)).map(({ hasMore }) => hasMore))).toEqual(new Set([false]));
});

it.each([
  ["that cannot be compressed", Array.from({ length: 300 }, (_, n) => [`h${n}`, `${Math.sin(n)}`] as const)],
  ["that are stored in a hundredth", [["long", "x".repeat(100_000)]] as const],
])("counts headers %s", async (_, headers) => {
  const worker = await TestWorker.open(client);
  await enqueue(client, "t", numbers(20), { headers });
  expect((await worker.take({ maxBytes: 40_000 })).length).toBeLessThanOrEqual(4);
});

it("makes the copies of a long message for all one after another, beside what else waits", async () => {
  for (const name of ["a", "b", "c"])
    await client.query(
      "INSERT INTO hawser_peer_data.listeners (topic, addr, listener_name, durable) VALUES ('t', '127.0.0.1:1' || $1, $1, true)",
      [name],
    );
  const worker = await TestWorker.open(client);
  await enqueue(client, "t", ["x".repeat(20_000)], { toAll: true });
  await enqueue(client, "t", ["other"]);
  const copied = async () => {
    const { rows } = await client.query(
      "SELECT array_agg(recipient ORDER BY recipient) AS to FROM hawser_data.queue WHERE octet_length(payload) > 5",
    );
    return rows[0].to;
  };
  expect(textsOf(await worker.take({ maxBytes }))).toEqual(["other"]);
  expect(await copied()).toEqual(["", "@a"]);
  await worker.take({ maxBytes });
  expect(await copied()).toEqual(["", "@a", "@b"]);
  await worker.take({ maxBytes });
  expect(await copied()).toEqual(["", "@a", "@b", "@c"]);
  await worker.take({ maxBytes });
  expect(await copied()).toEqual(["@a", "@b", "@c", "@w"]);
  expect((await worker.take({ maxBytes })).map(({ recipient }) => recipient)).toEqual(["@w"]);
  await client.query("TRUNCATE hawser_peer_data.listeners");
});
