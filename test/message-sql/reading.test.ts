/** `read_…`: what can be read is read, and everything else is refused with its field. */
import pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { madeOf } from "./support/made.js";
import { orderProto, refusal } from "./support/orders.js";

let database: TestDatabase;
let client: pg.Client;

beforeAll(async () => {
  const { sql } = await madeOf(
    orderProto("int32 amount = 3; repeated Item items = 5; message Item { string sku = 1; }"),
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

it.each([
  ["\\x0a0561", "cannot be read: the payload ends within the field", ".tenant"],
  ["\\x0a02ff61", 'cannot be read: invalid byte sequence for encoding "UTF8": 0xff', ".tenant"],
  ["\\x0a0161ff", "cannot be read: index 4 out of valid range, 0..3", ""],
  ["\\x2a030a0500", "cannot be read: the payload ends within the field", ".Item.sku"],
  ["\\x0c", "cannot be read: a group ends that was not started", ".tenant"],
  ["\\x0b", "cannot be read: a group does not end", ".tenant"],
  ["\\x0f", "cannot be read: the wire type 7 is not known", ".tenant"],
  ["\\x0000", "cannot be read: a field has the number 0", ""],
  ["\\x18ffffffffffffffffffff01", "cannot be read: a varint has more than 10 bytes", ".amount"],
])("is refused with the field when it cannot be read: %s", async (payload, problem, field) => {
  const error = await refusal(
    client.query("SELECT messages.read_order_placed($1)", [Buffer.from(payload.slice(2), "hex")]),
  );
  expect(error).toContain(`22P02: acme.v1.OrderPlaced${field}: ${problem}`);
});

it("may have fields and groups that are not known", async () => {
  const bytes = Buffer.from("0a0161" + "e2070362" + "6162" + "fb070801fb07fc07fc07" + "120178", "hex");
  const { rows } = await client.query("SELECT (messages.read_order_placed($1)).*", [bytes]);
  expect(rows).toMatchObject([{ tenant: "a", order_id: "x", amount: 0, items: "{}" }]);
});

it.each([
  [
    '{"content-type": ["application/x-protobuf; type=acme.v1.Other"]}',
    "cannot be read: the message is of the type acme.v1.Other",
  ],
  ['{"content-type": "text/plain"}', 'cannot be read: its content-type is "text/plain"'],
  ['{"content-type": "application/json"}', "cannot be read: invalid input syntax for type json"],
])("is not taken for something else: %s", async (headers, problem) => {
  const error = await refusal(client.query("SELECT messages.read_order_placed('\\x0a0161', $1)", [headers]));
  expect(error).toContain(`22P02: acme.v1.OrderPlaced: ${problem}`);
});
