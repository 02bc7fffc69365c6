/**
 * Arguments of many bytes: at their limits, above them, and far above, after each of which `hawser serve` goes on as before.
 * Where a value takes seconds to make, one argument of its type stands for all of them: the same code generates what refuses
 * them, and that each function has it is read in its source.
 */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Spec } from "../../../codegen/model/spec.js";
import { type TestDatabase, testDatabase } from "../../support/database.js";
import { type TestGateway, testGateway } from "../../support/gateway.js";
import {
  callOf,
  type Given,
  limitedCalls,
  limitedFunctions,
  manyBytes,
  projectSpec,
  quickBytes,
  withoutTwins,
} from "./limited-arguments.js";
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

const scalars = ["text", "bytea", "json", "jsonb", "pg_snapshot"];
const long = () => limitedCalls(spec).filter(({ bytes }) => bytes > quickBytes);

it("each call with an argument of many bytes above its limit is refused, and says so", { timeout }, async () => {
  const calls = withoutTwins(long());
  expect(calls.filter(({ bytes }) => bytes <= manyBytes).length).toBeGreaterThan(60);
  expect(new Set(calls.filter(({ bytes }) => bytes > manyBytes).map(({ kind }) => kind))).toEqual(
    new Set([...scalars.map((type) => `${type}, bytes`), "list, bytes in an element", "list, bytes in all"]),
  );
  for (const call of calls) await expectRefused(gateway.client, call);
});

it("each function refuses what is as long as that, by the argument's name and limit", async () => {
  const calls = long().filter(({ bytes }) => bytes > manyBytes);
  expect(calls.length).toBeGreaterThan(80);
  const { rows } = await gateway.client.query<{ name: string; source: string }>(`
    SELECT CASE n.nspname WHEN 'hawser' THEN 'hawser.' ELSE '' END || p.proname AS name, p.prosrc AS source
      FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname IN ('hawser', 'public')`);
  for (const { fn, argument, what } of calls) {
    const limit = /: (\d+) bytes/.exec(what)![1];
    const refusal = new RegExp(`refuse_argument\\('[^']+', '${argument}', (?:(?!refuse_argument).)*\\b${limit} bytes `);
    const sources = rows.filter(({ name }) => name === fn).map(({ source }) => source);
    expect(sources, what).toEqual(sources.map(() => expect.stringMatching(refusal)));
    expect(sources.length, what).toBeGreaterThan(0);
  }
});

it("no argument of many bytes at its limit is too long", { timeout }, async () => {
  for (const call of withoutTwins(long().filter(({ isFirstOfItsKind }) => isFirstOfItsKind))) {
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
    ["hawser.enqueue('a', t, stream => false)", 67108865],
    ["hawser.enqueue('a', j, stream => false)", 67108866],
    ["nats_publish_jsonb('a', j)", 67108866],
    ["hawser.enqueue_batch('a', ARRAY[t], stream => false)", 67108865],
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
  for (const call of ["hawser.enqueue('a', N, false)", "nats_publish_jsonb('a', N)", "hawser.enqueue('a', N)"]) {
    expect(await gateway.errorOf(`SELECT ${call.replace("N", numbers)}`), call).toMatchObject({
      code: "22023",
      message: expect.stringMatching(/is 7864\d{4} bytes long, and must be (at most|1 to) 67108864 bytes long/),
    });
  }
});

describe("a value that is far longer than permitted, up to 300 MiB,", () => {
  const size = 300 * 2 ** 20;
  const elements = 4_000_000;
  /** Made once: it is the value itself, and not its making, that each call has to do with. */
  const values: Readonly<Record<string, string>> = {
    text: "k.t",
    bytea: "k.b",
    json: "k.j",
    jsonb: "k.jb",
    "text[]": "ARRAY[k.t]",
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
      "jb = (SELECT jsonb_object_agg(n, repeat('x', 40000000)) FROM generate_series(1, 2) AS n)",
      `i = array_fill(1, ARRAY[${elements}])`,
      `i8 = array_fill(1::bigint, ARRAY[${elements}])`,
      `o = array_fill(true, ARRAY[${elements}])`,
    ])
      await gateway.client.query(`UPDATE large SET ${made}`);
    other = await gateway.connect();
    await other.query("SELECT nats_put_text('limits_other', 'k', 'v')");
  }, timeout);
  afterAll(() => other?.end());

  it("as an argument of each type is refused, and `hawser serve` answers others meanwhile", {
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
    // What refuses it is generated by the same code for all arguments of a type, and stands before all else.
    const tried = new Set<string>();
    try {
      for (const fn of limitedFunctions(spec)) {
        for (const parameter of fn.parameters) {
          const type = parameter.type + (parameter.repeated ? "[]" : "");
          const literal = values[type];
          const kind = parameter.rules.maxNameBytes === undefined ? type : "headers";
          if (literal === undefined || Object.keys(parameter.rules).length === 0 || tried.has(kind)) continue;
          tried.add(kind);
          const what = `${fn.name}(${parameter.name}), ${kind}`;
          const error = await gateway.errorOf(`${over(fn, parameter, literal)} FROM large AS k`);
          expect(["22023", "54000"], `${what}: ${error.message}`).toContain(error.code);
          expect(error.message, what).toMatch(new RegExp(`the argument ${parameter.name} is `));
        }
      }
    } finally {
      isOver = true;
    }
    expect(tried).toEqual(new Set([...Object.keys(values), "headers"]));
    expect(await meanwhile).toBeGreaterThan(0);
  });
});

function over(fn: Parameters<typeof callOf>[0], parameter: Given, literal: string): string {
  return callOf(fn, parameter, literal).replace("SELECT * FROM", "SELECT");
}
