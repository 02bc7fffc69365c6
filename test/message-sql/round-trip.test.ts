/**
 * Random messages of a schema with every type, from TypeScript to SQL and back: as Protobuf and as JSON, to the row and from it.
 */
import { readFileSync } from "node:fs";
import { type DescMessage, fromBinary, fromJsonString, type Message, toBinary, toJsonString } from "@bufbuild/protobuf";
import fc from "fast-check";
import pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { atDepth } from "../support/depth.js";
import { messageIn } from "../typed/support/compile.js";
import { messagesOf } from "./support/arbitrary.js";
import { madeOf } from "./support/made.js";

let database: TestDatabase;
let client: pg.Client;
let schema: DescMessage;

beforeAll(async () => {
  database = await testDatabase();
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
  const proto = readFileSync(new URL("support/everything.proto", import.meta.url), "utf8");
  const { registry, sql } = await madeOf({ "acme/all/v1/everything.proto": proto });
  await client.query(sql);
  schema = messageIn(registry, "acme.all.v1.Everything");
});

afterAll(async () => {
  await client?.end();
  await database?.drop();
});

it.each([
  {
    name: "Protobuf",
    statement: "SELECT messages.encode_everything(messages.read_everything($1)) AS bytes",
    write: (message: Message) => toBinary(schema, message),
    read: (written: string | Uint8Array) => fromBinary(schema, written as Uint8Array),
  },
  {
    name: "JSON",
    statement: `SELECT messages.encode_everything(
      messages.read_everything(convert_to($1, 'UTF8'), '{"Content-Type": "application/json"}')
    ) AS bytes`,
    write: (message: Message) => toJsonString(schema, message),
    read: (written: string | Uint8Array) => fromJsonString(schema, written as string),
  },
])("$name → row → Protobuf loses nothing", async ({ statement, write, read }) => {
  await fc.assert(
    fc.asyncProperty(messagesOf(schema), async (message) => {
      const written = write(message);
      const { rows } = await client.query(statement, [written]);
      // Equal as values of JavaScript: NaN is itself, minus zero is not zero, and entries have no order.
      expect(fromBinary(schema, new Uint8Array(rows[0].bytes))).toEqual(read(written));
    }),
    { numRuns: atDepth(2_000) },
  );
});
