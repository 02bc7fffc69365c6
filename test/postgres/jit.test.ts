/**
 * Servers with LLVM compile statements whose estimated cost is above `jit_above_cost`, which takes up to seconds each time. With a
 * threshold of 0 they compile all that they may. A server without LLVM, as the embedded one, compiles nothing whatever the
 * settings are: `npm run test:postgres -- debian` has one with it.
 */
import pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { DatabaseAddress, openSession } from "../../src/foundation/postgres/index.js";
import { callsOf } from "../faults/support/hostile/attack.js";
import { functionsOf } from "../faults/support/hostile/catalog.js";
import { Random } from "../simulator/random.js";
import { type TestDatabase, testDatabase } from "../support/database.js";

let database: TestDatabase;
beforeAll(async () => {
  database = await testDatabase();
});
afterAll(() => database.drop());

/** Functions with the settings of their callers: others of ours call them, or they only call others with the rights of a user. */
const callersFunctions =
  /^(hawser\.(gateway_call|gateway_lost|next_message_id)|(litmus_)?pgnats_(un)?register_responder|nats_(un)?subscribe(_stream)?|nats_seek_stream)\(/;

it("each function turns it off, but those that run with the settings of their callers", async () => {
  await using client = await connected();
  const { rows } = await client.query<{ name: string; settings: string[] | null }>(
    `SELECT p.oid::regprocedure::text AS name, p.proconfig AS settings
       FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace JOIN pg_language AS l ON l.oid = p.prolang
      WHERE (n.nspname LIKE 'hawser%' OR n.nspname = 'public') AND l.lanname <> 'c'`,
  );
  expect(rows.length).toBeGreaterThan(250);
  const others = rows.filter(({ settings }) => !settings?.includes("jit=off"));
  expect(others.filter(({ name }) => !callersFunctions.test(name)).map(({ name }) => name)).toEqual([]);
  expect(others.filter(({ settings }) => settings !== null)).toEqual([]);
});

it("no statement of any function is compiled, at any estimate of its cost", async () => {
  await using client = await connected();
  const compiled = new Set<string>();
  const { rows } = await client.query("SELECT pg_jit_available() AS available");
  let called = "";
  let call = "";
  let statements = 0;
  client.on("notice", ({ message = "" }) => {
    const [, plan] = /plan:\n(.*)/s.exec(message) ?? [];
    // The call itself has the settings of its session.
    if (plan === undefined || JSON.parse(plan)["Query Text"] === call) return;
    statements += 1;
    if ("JIT" in JSON.parse(plan)) compiled.add(called);
  });
  await client.query("LOAD 'auto_explain'");
  await client.query(
    `SET jit = on; SET jit_above_cost = 0; SET jit_inline_above_cost = -1; SET jit_optimize_above_cost = -1;
     SET auto_explain.log_min_duration = 0; SET auto_explain.log_analyze = on; SET auto_explain.log_timing = off;
     SET auto_explain.log_format = json; SET auto_explain.log_level = notice`,
  );
  called = "a statement of the user";
  await client.query("SELECT count(*) FROM pg_class");
  expect([...compiled]).toEqual(rows[0].available ? [called] : []);

  // Statements of the functions alone.
  await client.query("SET auto_explain.log_nested_statements = on");
  const functions = (await functionsOf(client, new Map())).filter(({ isTrigger }) => !isTrigger);
  const options = {
    role: "none" as const,
    ids: { numbers: [], texts: [] },
    random: new Random(1),
    valuesPerArgument: 0,
    pairs: 0,
  };
  compiled.clear();
  statements = 0;
  for (const each of functions) {
    const { sql } = callsOf(each, options)[0]!;
    called = each.signature;
    call = sql;
    await client.query("BEGIN");
    await client.query(sql).catch(() => undefined);
    await client.query("ROLLBACK");
  }
  expect([...compiled].filter((name) => !callersFunctions.test(name))).toEqual([]);
  expect(statements).toBeGreaterThan(functions.length);
});

it("no session of Hawser's own compiles a statement", async () => {
  const { client } = await openSession(DatabaseAddress.of(database.url));
  const { rows } = await client.query("SELECT current_setting('jit') AS jit");
  expect(rows).toEqual([{ jit: "off" }]);
  await client.end();
});

async function connected(): Promise<pg.Client & AsyncDisposable> {
  const client = new pg.Client(database.url);
  await client.connect();
  return Object.assign(client, { [Symbol.asyncDispose]: () => client.end() });
}
