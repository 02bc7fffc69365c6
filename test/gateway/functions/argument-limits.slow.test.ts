/**
 * Arguments of many bytes: at their limits, above them, and of 300 MiB, after each of which `hawser serve` goes on as before.
 */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Spec } from "../../../codegen/model/spec.js";
import { type TestDatabase, testDatabase } from "../../support/database.js";
import { type TestGateway, testGateway } from "../../support/gateway.js";
import { callOf, type Given, limitedCalls, limitedFunctions, projectSpec, quickBytes } from "./limited-arguments.js";
import { expectRefused, expectTaken } from "./limits-hold.js";

/** On a machine with much other work, too. */
const timeout = 1_800_000;

let gateway: TestGateway;
let database: TestDatabase;
let spec: Spec;
/** In a database without `hawser serve`: nothing is made of what is taken. */
let alone: pg.Client;
beforeAll(async () => {
  [gateway, spec, database] = await Promise.all([testGateway(), projectSpec(), testDatabase()]);
  alone = new pg.Client(database.url);
  await alone.connect();
});
afterAll(async () => {
  await alone?.end();
  await database?.drop();
  await gateway?.[Symbol.asyncDispose]();
});

/** The functions in which each type of payload is tried: what is done with it is done by the same code in all others. */
const ofEachType = /^(hawser\.peer_enqueue|nats_enqueue|nats_publish)_(text|jsonb?|binary)$/;
const isTried = (fn: string, isFirstOfItsKind: boolean) => isFirstOfItsKind || ofEachType.test(fn);
const long = () =>
  limitedCalls(spec).filter(
    ({ fn, bytes, isFirstOfItsKind }) => bytes > quickBytes && (bytes < 2 ** 24 || isTried(fn, isFirstOfItsKind)),
  );

it("each call with an argument of many bytes above its limit is refused, and says so", { timeout }, async () => {
  const calls = long();
  expect(calls.length).toBeGreaterThan(80);
  for (const call of calls) await expectRefused(gateway.client, call);
});

it("no argument of many bytes at its limit is too long", { timeout }, async () => {
  for (const call of long().filter(({ isFirstOfItsKind }) => isFirstOfItsKind)) {
    // A million rows would be written.
    if (!/enqueue.*: 1000000 elements/.test(call.what)) await expectTaken(alone, call);
  }
});

it("a value that Postgres keeps compressed is as long as it was", { timeout }, async () => {
  const { client } = gateway;
  await client.query("CREATE TABLE kept AS SELECT repeat('x', 67108865) AS t, to_jsonb(repeat('x', 67108864)) AS j");
  const { rows } = await client.query("SELECT pg_column_size(t) AS t, pg_column_size(j) AS j FROM kept");
  expect(rows[0].t).toBeLessThan(2 ** 20);
  expect(rows[0].j).toBeLessThan(2 ** 20);
  for (const [call, bytes] of [
    ["nats_enqueue_text('a', t)", 67108865],
    ["nats_enqueue_jsonb('a', j)", 67108866],
    ["nats_publish_jsonb('a', j)", 67108866],
    ["nats_enqueue_text_batch('a', ARRAY[t])", 67108865],
  ] as const) {
    expect(await gateway.errorOf(`SELECT ${call} FROM kept`), call).toMatchObject({
      code: "22023",
      message: expect.stringContaining(`${bytes} bytes`),
    });
  }
});

it("a number of a few bytes in jsonb whose text is long is as long as its text", { timeout }, async () => {
  const numbers = "(SELECT jsonb_agg(1e131071::numeric) FROM generate_series(1, 600))";
  expect((await gateway.client.query(`SELECT pg_column_size(${numbers}) AS size`)).rows[0].size).toBeLessThan(10_000);
  for (const call of ["nats_enqueue_jsonb", "nats_publish_jsonb", "hawser.peer_enqueue_jsonb"]) {
    expect(await gateway.errorOf(`SELECT ${call}('a', ${numbers})`), call).toMatchObject({
      code: "22023",
      message: expect.stringMatching(/is 7864\d{4} bytes long, and must be at most 67108864 bytes long/),
    });
  }
});

describe("300 MiB", () => {
  const size = 300 * 2 ** 20;
  /** Made once: it is the value itself, and not its making, that each call has to do with. */
  const values: Readonly<Record<string, string>> = {
    text: "k.t",
    bytea: "k.b",
    json: "k.j",
    // More than a value of jsonb can have in one string.
    jsonb: "k.jb",
    "text[]": "ARRAY[k.t]",
    "bytea[]": "ARRAY[k.b]",
    "json[]": "ARRAY[k.j]",
    "jsonb[]": "ARRAY[k.jb, k.jb]",
    "integer[]": "k.i",
    "bigint[]": "k.i8",
    "boolean[]": "k.o",
  };
  let other: pg.Client;
  beforeAll(async () => {
    await gateway.client.query(
      "CREATE TABLE large (t text, b bytea, j json, jb jsonb, i integer[], i8 bigint[], o boolean[]); INSERT INTO large DEFAULT VALUES",
    );
    // One after another: a row that is not stored yet has less than 1 GiB.
    for (const made of [
      `t = repeat('x', ${size})`,
      `b = convert_to(repeat('x', ${size}), 'UTF8')`,
      `j = ('"' || repeat('x', ${size}) || '"')::json`,
      "jb = (SELECT jsonb_object_agg(n, repeat('x', 40000000)) FROM generate_series(1, 6) AS n)",
      `i = array_fill(1, ARRAY[${size / 4}])`,
      `i8 = array_fill(1::bigint, ARRAY[${size / 8}])`,
      `o = array_fill(true, ARRAY[${size / 4}])`,
    ])
      await gateway.client.query(`UPDATE large SET ${made}`);
    other = await gateway.connect();
    await other.query("SELECT nats_put_text('limits_other', 'k', 'v')");
  }, timeout);
  afterAll(() => other?.end());

  it("as any argument of any function is refused, and `hawser serve` answers others meanwhile", {
    timeout,
  }, async () => {
    let isOver = false;
    const meanwhile = (async () => {
      let calls = 0;
      for (; !isOver; calls++) {
        expect((await other.query("SELECT nats_get_text('limits_other', 'k') AS v")).rows).toEqual([{ v: "v" }]);
      }
      return calls;
    })();
    // It is awaited below.
    meanwhile.catch(() => undefined);
    const tried: string[] = [];
    try {
      for (const fn of limitedFunctions(spec)) {
        for (const parameter of fn.parameters) {
          const literal = values[parameter.type + (parameter.repeated ? "[]" : "")];
          if (literal === undefined || Object.keys(parameter.rules).length === 0) continue;
          if (!/^(text|bytea)$/.test(parameter.type) && !isTried(fn.name, fn.isFirstOfItsKind)) continue;
          const what = `${fn.name}(${parameter.name})`;
          const error = await gateway.errorOf(`${over(fn, parameter, literal)} FROM large AS k`);
          expect(["22023", "54000"], `${what}: ${error.message}`).toContain(error.code);
          expect(error.message, what).toMatch(new RegExp(`the argument ${parameter.name} is `));
          tried.push(what);
        }
      }
    } finally {
      isOver = true;
    }
    expect(tried.length).toBeGreaterThan(200);
    expect(await meanwhile).toBeGreaterThan(0);
  });
});

function over(fn: Parameters<typeof callOf>[0], parameter: Given, literal: string): string {
  return callOf(fn, parameter, literal).replace("SELECT * FROM", "SELECT");
}
