/**
 * Topics whose messages a Standard Schema checks, here of zod.
 */
import pg from "pg";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import * as z from "zod";
import { enqueue, enqueueBatch, type SchemaTopic, schedule, unschedule } from "../../src/jobs-and-peers/peer/index.js";
import { eventually } from "../support/eventually.js";
import { failure } from "./support/errors.js";
import { Log } from "./support/log.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();
let client: pg.Client;

beforeEach(async () => {
  client = new pg.Client({ connectionString: world.url });
  await client.connect();
});
afterEach(() => client.end());

const line = z.object({ sku: z.string().min(2), quantity: z.int().default(1) });
const orders = { topic: "orders", schema: z.object({ id: z.int(), lines: z.array(line) }) };

const deadLetters = () =>
  world.query<{ error_code: string; error_message: string; attempts: number }>(
    "SELECT error_code, error_message, attempts FROM hawser_data.dead_letters ORDER BY id",
  );

describe("a topic with its schema", () => {
  it("takes messages of send, sendAll, enqueue and schedules, and hands over what the schema returns", async () => {
    const a = await world.started("a-1");
    const b = world.peer("b-1");
    const received = new Log<unknown>();
    await b.handle(orders, ({ id, lines }, { headers }) => received.push([id, lines, headers.get("content-type")]));
    await b.start();
    await a.send(orders, { id: 1, lines: [{ sku: "RO-180" }] }, { headers: { trace: "1" } });
    await a.sendAll(orders, { id: 2, lines: [] });
    await enqueue(client, orders, { id: 3, lines: [] });
    await received.length(3);
    await a.enqueue(client, orders, { id: 4, lines: [] });
    await received.length(4);
    await enqueueBatch(client, orders, [{ id: 5, lines: [] }]);
    await received.length(5);
    await schedule(client, "each-second", { cron: "* * * * * *", to: orders, payload: { id: 6, lines: [] } });
    await received.length(6);
    await unschedule(client, "each-second");
    expect(received.all.slice(0, 6)).toEqual([
      [1, [{ sku: "RO-180", quantity: 1 }], "application/json"],
      ...[2, 3, 4, 5, 6].map((id) => [id, [], "application/json"]),
    ]);
  });

  it("refuses a message where it enters, with the path of the value", async () => {
    const a = await world.started("a-1");
    const wrong = { id: 1, lines: [{ sku: "RO-180" }, { sku: "x" }] };
    const text = "orders.lines[1].sku: Too small: expected string to have >=2 characters";
    for (const act of [
      () => a.send(orders, wrong),
      () => a.sendAll(orders, wrong),
      () => enqueue(client, orders, wrong),
      () => schedule(client, "nightly", { cron: "0 3 * * *", to: orders, payload: wrong }),
    ])
      expect((await failure("invalid_argument", act)).message).toBe(text);
    const batch = () => enqueueBatch(client, orders, [{ id: 1, lines: [] }, wrong]);
    expect((await failure("invalid_argument", batch)).message).toBe(`payloads[1]: ${text}`);
    expect(await world.query("SELECT FROM hawser_data.queue")).toEqual([]);
  });

  it("refuses what the handler would refuse after JSON", async () => {
    const a = await world.started("a-1");
    const dated: SchemaTopic<z.ZodType> = { topic: "dated", schema: z.object({ at: z.date() }) };
    const { message } = await failure("invalid_argument", a.send(dated, { at: new Date() }));
    expect(message).toBe("dated.at: Invalid input: expected date, received string");
    const ids: SchemaTopic<z.ZodType> = { topic: "ids", schema: z.unknown() };
    expect((await failure("invalid_argument", a.send(ids, { id: 1n }))).message).toMatch(
      /^a message of "ids": .*BigInt/,
    );
    expect((await failure("invalid_argument", a.send(ids, undefined))).message).toBe(
      'a message of "ids": JSON has no undefined',
    );
  });

  it("takes any JSON, not only objects", async () => {
    const a = await world.started("a-1");
    const b = world.peer("b-1");
    const received = new Log<unknown>();
    const count = { topic: "counts", schema: z.number() };
    await b.handle(count, (value) => received.push(value));
    await b.start();
    await a.send(count, 7);
    expect(received.all).toEqual([7]);
  });

  it("makes a dead letter of what others sent and the schema refuses, and leaves it out of batches", async () => {
    const a = await world.started("a-1");
    const b = world.peer("b-1");
    const batches = new Log<unknown>();
    await b.handle({ topic: "single", schema: orders.schema }, () => undefined);
    await b.handleBatch(
      orders,
      { maxMessages: 2, waitMs: 60_000, transactional: true },
      (values, { messages, client }) =>
        batches.push([values.map(({ id }) => id), messages.map(({ key }) => key), typeof client.query]),
    );
    await b.start();
    await a.send("single", { id: "1" });
    await a.send("orders", "no JSON");
    await eventually("both are dead letters", async () => (await deadLetters()).length === 2);
    expect(await deadLetters()).toEqual([
      {
        error_code: "invalid_message",
        error_message: "single.id: Invalid input: expected number, received string",
        attempts: 1,
      },
      { error_code: "invalid_message", error_message: expect.stringContaining("is not JSON"), attempts: 1 },
    ]);
    await Promise.all([1, 2].map((id) => a.send(orders, { id, lines: [] }, { key: `k${id}` })));
    await batches.length(1);
    expect(batches.all).toEqual([[[1, 2], ["k1", "k2"], "function"]]);
  });

  it("is refused without a schema that can be asked at once", async () => {
    const a = await world.started("a-1");
    const b = world.peer("b-1");
    const none = { topic: "none", schema: {} } as unknown as typeof orders;
    const remedy = "give a Standard Schema, such as one of zod, valibot or arktype";
    for (const act of [() => a.send(none, { id: 1, lines: [] }), () => b.handle(none, () => undefined)])
      expect((await failure("invalid_argument", act)).message).toBe(
        `the schema of "none" has no method ~standard.validate; ${remedy}`,
      );
    const slow = { topic: "slow", schema: z.string().refine(async () => true) };
    expect((await failure("invalid_argument", a.send(slow, "x"))).message).toBe(
      'the schema of "slow" is asynchronous; check in the handler what has to be waited for',
    );
    expect((await failure("invalid_argument", a.send(orders, { id: 1, lines: [] }, { format: "json" }))).message).toBe(
      "format json: applies to Protobuf only; leave it out",
    );
  });
});
