/**
 * The table of good and bad values of `test/typed`, which protovalidate and the checks in TypeScript agree on: those in SQL
 * say the same of each, for what is published and for what comes, as Protobuf and as JSON.
 */
import { fromBinary, fromJson, toBinary, toJsonString } from "@bufbuild/protobuf";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { caseName, ruleCases, rulesPackage, rulesProto } from "../typed/rules-table.js";
import { messageIn } from "../typed/support/compile.js";
import { type Made, madeOf } from "./support/made.js";

let database: TestDatabase;
let client: pg.Client;
let made: Made;

beforeAll(async () => {
  database = await testDatabase();
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
  made = await madeOf({ "acme/rules/v1/rules.proto": rulesProto() });
  await client.query(made.sql);
});

afterAll(async () => {
  await client?.end();
  await database?.drop();
});

const json = '{"content-type": ["application/json"]}';
const cases = ruleCases.flatMap((one, index) =>
  [...one.good, ...one.bad].map((value) => ({
    rule: one.rule,
    index,
    value,
    isGood: one.good.includes(value),
    shown: JSON.stringify(value)?.slice(0, 40),
  })),
);

describe("SQL says what the table says of", () => {
  it.each([
    ["what came as Protobuf", (name: string) => `SELECT messages.read_${name}($1::bytea) AS row, $2::text AS json`],
    [
      "what came as JSON",
      (name: string) =>
        `SELECT messages.read_${name}(convert_to($2::text, 'UTF8'), '${json}') AS row, length($1::bytea) AS bytes`,
    ],
    [
      "what is published",
      (name: string, fields: readonly string[]) =>
        `SELECT messages.publish_${name}(${fields.map((field) => `"${field}" => r."${field}", `).join("")}_to => 'nats'), $2::text AS json
           FROM messages.decode_${name}($1::bytea) AS r`,
    ],
  ])("%s", async (_, statementOf) => {
    const wrong: unknown[] = [];
    for (const { rule, index, value, isGood } of cases) {
      const schema = messageIn(made.registry, `${rulesPackage}.${caseName(index)}`);
      const bytes = toBinary(schema, fromJson(schema, value === undefined ? {} : { value }));
      const text = toJsonString(schema, fromBinary(schema, bytes));
      const fields = schema.fields.map(({ name }) => name);
      const error = await client.query(statementOf(caseName(index).toLowerCase(), fields), [bytes, text]).then(
        () => undefined,
        (failure: pg.DatabaseError) => failure,
      );
      const named =
        error?.code === "22P02" && (error.message.includes(`(${rule})`) || error.message.includes("(required)"));
      if (isGood ? error !== undefined : !named)
        wrong.push({ rule, value, isGood, error: error?.message, where: error?.where });
    }
    expect(wrong).toEqual([]);
  });
});
