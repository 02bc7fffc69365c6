/** Reading a payload takes work in proportion to its bytes, whatever somebody has put into it. */
import { once } from "node:events";
import pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { madeOf } from "./support/made.js";
import { orderProto } from "./support/orders.js";

let database: TestDatabase;
let client: pg.Client;

beforeAll(async () => {
  const { sql } = await madeOf(
    orderProto(`
      repeated Item items = 5;
      message Item { optional string sku = 1; }
      repeated int32 numbers = 6;
      repeated fixed32 fixed = 7;
      map<string, int32> counts = 8;
      map<string, Item> named = 9;
      Item one = 10;
      repeated google.protobuf.Timestamp times = 11;
      repeated string words = 12 [(buf.validate.field).repeated.items.string.max_len = 9];
    `),
  );
  database = await testDatabase();
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
  await client.query(sql);
});

afterAll(async () => {
  await client?.end();
  await database?.drop();
});

const bytes = (hex: string): Buffer => Buffer.from(hex, "hex");
const withLength = (tag: string, content: Buffer): Buffer =>
  Buffer.concat([bytes(tag), Buffer.from([content.length]), content]);

it.each([
  ["a list", "2a00", "items", "decode_order_placed_item"],
  ["a map", "4a00", "named", "hawser_decode_order_placed_named"],
  ["a list of times", "5a00", "times", "hawser_decode_timestamp"],
])("reads 256 KiB of empty messages in %s without a call for each", async (_, hex, field, name) => {
  const count = 2 ** 17;
  await client.query("BEGIN");
  try {
    await client.query("SET LOCAL track_functions = 'all'");
    const { rows } = await client.query(
      `SELECT cardinality((messages.decode_order_placed($1)).${field})::integer AS count`,
      [Buffer.alloc(count * 2, bytes(hex))],
    );
    const { rows: calls } = await client.query(
      "SELECT coalesce(sum(calls), 0)::integer AS calls FROM pg_stat_xact_user_functions WHERE funcname = $1",
      [name],
    );
    // Of entries of a map with one key the last one counts.
    expect(rows).toEqual([{ count: field === "named" ? 1 : count }]);
    expect(calls[0].calls).toBeLessThan(10);
  } finally {
    await client.query("ROLLBACK");
  }
});

/** The processor time that Postgres says it has used for reading, which other work of the machine does not change. */
async function processorMsOf(payload: Buffer): Promise<number> {
  const told = once(client, "notice") as Promise<[{ readonly detail?: string }]>;
  await client.query("SET log_executor_stats = on; SET client_min_messages = log");
  await client.query("SELECT messages.read_order_placed($1) IS NULL", [payload]);
  await client.query("RESET client_min_messages; RESET log_executor_stats");
  const [{ detail }] = await told;
  const seconds = /^!\t([\d.]+) s user, ([\d.]+) s system/m.exec(detail ?? "");
  return (Number(seconds?.[1]) + Number(seconds?.[2])) * 1_000;
}

const parts: [name: string, part: (number: number) => Buffer][] = [
  ["messages of one field", () => bytes("2a030a0161")],
  ["parts of one message", () => withLength("52", withLength("0a", Buffer.alloc(60, "a")))],
  ["numbers", () => bytes("3001")],
  ["packed lists of one number", () => bytes("320101")],
  ["packed lists of one fixed number", () => bytes("3a0401000000")],
  ["words whose length is checked", () => bytes("620161")],
  ["entries of a map", (number) => withLength("42", withLength("0a", Buffer.from(String(number))))],
  ["unknown fields", () => bytes("f80701")],
  ["groups", () => bytes("fb07fc07")],
];

it.each(parts)("takes no more than in proportion to the number of %s", async (_, part) => {
  const few = 1_000;
  const factor = 16;
  const payloadOf = (count: number): Buffer => Buffer.concat(Array.from({ length: count }, (__, at) => part(at)));
  const [small, large] = [payloadOf(few), payloadOf(few * factor)];
  const [ofSmall, ofLarge] = [await processorMsOf(small), await processorMsOf(large)];
  // With the square of the number it were 256 times as much.
  expect(ofLarge).toBeLessThan((ofSmall + 1) * factor * 5);
});

it("reads groups in groups by counting them", async () => {
  const depth = 100_000;
  const payload = Buffer.concat([Buffer.alloc(depth, 0x7b), Buffer.alloc(depth, 0x7c), bytes("0a0161")]);
  const { rows } = await client.query("SELECT (messages.decode_order_placed($1)).tenant", [payload]);
  expect(rows).toEqual([{ tenant: "a" }]);
});

it("merges the parts of a message in their order", async () => {
  const payload = bytes("52030a0161" + "5200" + "52030a0162");
  const { rows } = await client.query("SELECT ((messages.decode_order_placed($1)).one).sku", [payload]);
  expect(rows).toEqual([{ sku: "b" }]);
});
