/**
 * Arguments that nats_subscribe and its like accept and refuse, and the rows that they write.
 */
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type BindingWorld, bindingWorld, errorOf } from "./support/binding-world.js";

let world: BindingWorld;
let client: pg.Client;

const subscriptionForms =
  "Give it one of these signatures: (payload bytea), (payload bytea, subject text), (payload bytea, subject text, headers jsonb); " +
  "or, for a whole batch, (payloads bytea[]), (payloads bytea[], subjects text[]), (payloads bytea[], subjects text[], headers jsonb[]).";
const responderForms =
  "Give it one of these signatures: (payload bytea) RETURNS bytea, (payload text, subject text, reply_to text) RETURNS text.";

beforeAll(async () => {
  world = await bindingWorld();
  client = world.client;
  await client.query(`
    CREATE FUNCTION one(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT';
    CREATE FUNCTION two(payload bytea, subject text) RETURNS integer LANGUAGE sql AS 'SELECT 1';
    CREATE FUNCTION three(payload bytea, subject text, headers jsonb) RETURNS void LANGUAGE plpgsql AS 'BEGIN END';
    CREATE FUNCTION bytes(payload bytea) RETURNS bytea LANGUAGE sql AS 'SELECT payload';
    CREATE FUNCTION words(payload text, subject text, reply_to text) RETURNS text LANGUAGE sql AS 'SELECT upper(payload)';
    CREATE PROCEDURE proc(payload bytea) LANGUAGE sql AS 'SELECT';
    CREATE AGGREGATE agg(bytea) (SFUNC = byteacat, STYPE = bytea);
    CREATE FUNCTION many(payload bytea) RETURNS SETOF integer LANGUAGE sql AS 'SELECT 1';
    CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS 'SELECT';
    CREATE FUNCTION wrong(payload text) RETURNS void LANGUAGE sql AS 'SELECT';
    CREATE FUNCTION defaulted(payload bytea, more integer DEFAULT 1) RETURNS void LANGUAGE sql AS 'SELECT';
    CREATE FUNCTION variadic_one(VARIADIC payload bytea[]) RETURNS void LANGUAGE sql AS 'SELECT';
    CREATE FUNCTION wrong_result(payload bytea) RETURNS text LANGUAGE sql AS 'SELECT ''x''';
  `);
});
afterAll(async () => world?.[Symbol.asyncDispose]());
beforeEach(async () => {
  for (const { subject, fn } of await world.rows<{ subject: string; fn: string }>(
    "SELECT subject, format('%I.%I(%s)', function_schema, function_name, argument_types) AS fn FROM hawser_bridge_data.nats_handlers WHERE kind = 'subscription'",
  )) {
    await client.query("SELECT nats_unsubscribe($1, $2::regprocedure)", [subject, fn]);
  }
});

describe("nats_subscribe", () => {
  it("takes the three signatures, several functions for a subject, and the same twice", async () => {
    await client.query("SELECT nats_subscribe('s', 'one'::regproc)");
    await client.query("SELECT nats_subscribe('s', 'two(bytea,text)'::regprocedure)");
    await client.query("SELECT nats_subscribe('s', 'three'::regproc::oid)");
    await client.query("SELECT nats_subscribe('s', 'one')");
    await client.query("SELECT nats_subscribe(subject => 's', fn_oid => 'public.two')");
    expect(await world.subscriptions()).toEqual([
      "s public.one(bytea)",
      "s public.three(bytea, text, jsonb)",
      "s public.two(bytea, text)",
    ]);
    expect(await world.bound("s")).toHaveLength(3);
  });

  it.each([
    ["'proc(bytea)'::regprocedure", "the procedure public.proc(bytea)"],
    ["'agg(bytea)'::regprocedure", "the aggregate public.agg(bytea)"],
    ["'many'", "the set-returning function public.many(bytea)"],
    ["'nothing'", "the function public.nothing()"],
    ["'wrong'", "the function public.wrong(text)"],
    ["'words'", "the function public.words(text, text, text)"],
    ["'defaulted'", "the function public.defaulted(bytea, integer)"],
    ["'variadic_one'", "the function public.variadic_one(bytea[])"],
    ["'pg_catalog.first_value'", "the window function pg_catalog.first_value(anyelement)"],
  ])("refuses %s, with the list of what it takes", async (fn, what) => {
    expect(await errorOf(client, `SELECT nats_subscribe('s', ${fn})`)).toMatchObject({
      code: "42883",
      message: `nats_subscribe: ${what} cannot be called for messages of NATS`,
      hint: subscriptionForms,
    });
  });

  it("refuses a temporary function, and an oid that is none", async () => {
    await client.query("CREATE FUNCTION pg_temp.gone(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT'");
    expect(await errorOf(client, "SELECT nats_subscribe('s', 'pg_temp.gone')")).toMatchObject({ code: "42883" });
    expect(await errorOf(client, "SELECT nats_subscribe('s', 4000000000::oid)")).toMatchObject({
      code: "42883",
      message: "nats_subscribe: there is no function with the oid 4000000000",
    });
  });

  it("refuses NULL, naming the argument", async () => {
    for (const [call, argument] of [
      ["nats_subscribe(NULL, 'one')", "nats_subscribe: subject"],
      ["nats_subscribe('s', NULL)", "nats_subscribe: fn_oid"],
      ["nats_unsubscribe(NULL, 'one')", "nats_unsubscribe: subject"],
      ["nats_unsubscribe('s', NULL)", "nats_unsubscribe: fn_oid"],
      ["litmus_pgnats_register_responder(NULL, 'bytes')", "litmus_pgnats_register_responder: subject"],
      ["litmus_pgnats_register_responder('s', NULL)", "litmus_pgnats_register_responder: fn_oid"],
      ["litmus_pgnats_unregister_responder(NULL)", "litmus_pgnats_unregister_responder: subject"],
    ]) {
      const error = await errorOf(client, `SELECT ${call}`);
      expect([error.code, error.message], call).toEqual(["22004", expect.stringContaining(`${argument} is NULL`)]);
    }
  });

  it.each([
    "",
    " ",
    "a b",
    "a..b",
    ".a",
    "a.",
    "a.>.b",

    "a\tb",
    "a\u00a0b",
    "x".repeat(256),
    "x".repeat(100_000),
  ])("refuses the subject %j", async (subject) => {
    const error = await errorOf(client, "SELECT nats_subscribe($1, 'one')", [subject]);
    expect(error.code).toBe("22023");
    expect(error.message).toMatch(
      /^the subject '.* cannot be subscribed to$|^nats_subscribe: the argument subject .* at most 1024 bytes/s,
    );
    expect(error.message.length).toBeLessThan(400);
  });

  it.each([
    "*",
    ">",
    "a.*.b",
    "devicehub.alias.<mydevice>.<mytag>",
    "a>",
    "a*",
    "a.>",
    "ä.ß",
    "o'brien",
    'say."hi"',
    "100%",
    "$$x$$",
    "$1.%I",
    "a\\b",
    "x".repeat(255),
    "日".repeat(85),
  ])("takes the subject %j", async (subject) => {
    await client.query("SELECT nats_subscribe($1, 'one')", [subject]);
    expect(await world.subscriptions()).toEqual([`${subject} public.one(bytea)`]);
    await client.query("SELECT nats_unsubscribe($1, 'one')", [subject]);
    expect(await world.subscriptions()).toEqual([]);
  });

  it.each([
    "o'brien",
    'say "hi"',
    "100% %I %s",
    "$$ $x$ $1",
    "back\\slash",
    "日本語".repeat(7),
    "x".repeat(63),
    "SELECT",
  ])("takes a function and a schema named %s", async (name) => {
    const quoted = `"${name.replaceAll('"', '""')}"`;
    await client.query(`CREATE SCHEMA ${quoted}`);
    await client.query(`CREATE FUNCTION ${quoted}.${quoted}(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT'`);
    await client.query("SELECT nats_subscribe('named', $1::regproc)", [`${quoted}.${quoted}`]);
    expect(await world.bound("named")).toHaveLength(1);
    await client.query("SELECT nats_unsubscribe('named', $1::regproc)", [`${quoted}.${quoted}`]);
    expect(await world.bound("named")).toHaveLength(0);
    await client.query(`DROP SCHEMA ${quoted} CASCADE`);
  });

  it("is undone with its transaction", async () => {
    await client.query("BEGIN; SELECT nats_subscribe('s', 'one'); ROLLBACK");
    expect(await world.subscriptions()).toEqual([]);
  });

  it("is refused in a read-only transaction", async () => {
    for (const call of [
      "nats_subscribe('s', 'one')",
      "nats_unsubscribe('s', 'one')",
      "litmus_pgnats_register_responder('s', 'bytes')",
      "litmus_pgnats_unregister_responder('s')",
    ]) {
      await client.query("BEGIN READ ONLY");
      const error = await errorOf(client, `SELECT ${call}`);
      await client.query("ROLLBACK");
      expect([error.code, error.message], call).toEqual([
        "25006",
        `${call.slice(0, call.indexOf("("))}: the transaction is read-only`,
      ]);
    }
  });

  it("needs EXECUTE on the function and USAGE on its schema", async () => {
    const user = await world.user();
    const session = await world.connect(user.url);
    await client.query("REVOKE EXECUTE ON FUNCTION two FROM PUBLIC");
    expect(await errorOf(session, "SELECT nats_subscribe('s', 'two')")).toMatchObject({
      code: "42501",
      message: `nats_subscribe: "${user.role}" may not execute the function public.two(bytea, text)`,
      hint: `GRANT EXECUTE ON FUNCTION public.two(bytea, text) TO ${user.role}`,
    });
    await client.query("CREATE SCHEMA closed");
    await client.query("CREATE FUNCTION closed.f(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT'");
    const [f] = await world.rows<{ oid: number }>("SELECT 'closed.f'::regproc::oid AS oid");
    expect(await errorOf(session, `SELECT nats_subscribe('s', ${f!.oid}::oid)`)).toMatchObject({
      code: "42501",
      message: `nats_subscribe: "${user.role}" may not use the schema closed of the function closed.f(bytea)`,
    });
  });

  it("is not for those who have no right to it", async () => {
    const user = await world.user();
    await client.query(`REVOKE hawser_nats FROM ${user.role}`);
    expect(await errorOf(await world.connect(user.url), "SELECT nats_subscribe('s', 'one')")).toMatchObject({
      code: "42501",
    });
  });
});

describe("nats_unsubscribe", () => {
  it("is no error if nothing is subscribed", async () => {
    await client.query("SELECT nats_unsubscribe('nowhere', 'one')");
    await client.query("SELECT nats_unsubscribe('nowhere', 4000000000::oid)");
    await client.query("SELECT litmus_pgnats_unregister_responder('nowhere')");
  });

  it("takes out the function that is named, and nothing else", async () => {
    await client.query("SELECT nats_subscribe('s', 'one'), nats_subscribe('s', 'three'), nats_subscribe('t', 'one')");
    await client.query("SELECT nats_unsubscribe('s', 'one')");
    expect(await world.subscriptions()).toEqual(["s public.three(bytea, text, jsonb)", "t public.one(bytea)"]);
  });

  it("is refused for what another role has subscribed", async () => {
    const [one, other] = [await world.user(), await world.user()];
    const [session, stranger] = [await world.connect(one.url), await world.connect(other.url)];
    await session.query("SELECT nats_subscribe('mine', 'one')");
    expect(await errorOf(stranger, "SELECT nats_unsubscribe('mine', 'one')")).toMatchObject({
      code: "42501",
      message: expect.stringContaining(`was made by "${one.role}"`),
    });
    await stranger.query("SELECT nats_subscribe('mine', 'one')");
    expect((await world.bound("mine")).map(({ runAs }) => runAs)).toEqual([one.role, other.role]);
    await stranger.query("SELECT nats_unsubscribe('mine', 'one')");
    expect((await world.bound("mine")).map(({ runAs }) => runAs)).toEqual([one.role]);
    await client.query("SELECT nats_unsubscribe('mine', 'one')");
  });
});

describe("litmus_pgnats_register_responder", () => {
  it("takes both signatures, and replaces the one before", async () => {
    await client.query("SELECT litmus_pgnats_register_responder('rpc', 'bytes')");
    const [first] = await world.bound("rpc");
    await client.query("SELECT litmus_pgnats_register_responder('rpc', 'bytes')");
    expect(await world.bound("rpc")).toEqual([first]);
    await client.query("SELECT litmus_pgnats_register_responder('rpc', 'words'::regproc)");
    expect(await world.bound("rpc")).toMatchObject([{ wrapper: expect.stringMatching(/^public\.words answers rpc /) }]);
    expect(await world.subscriptions()).toEqual([]);
    await client.query("SELECT litmus_pgnats_unregister_responder('rpc')");
    expect(await world.bound("rpc")).toEqual([]);
    expect(await world.rows("SELECT FROM hawser_bridge_data.nats_handlers WHERE kind = 'responder'")).toEqual([]);
  });

  it.each(["$JS.API.CONSUMER.MSG.NEXT.S.>", "$SYS.REQ.>", "$KV.bucket.key", "$O.store.>"])(
    "does not answer in the place of the NATS server: %s",
    async (subject) => {
      const { code, message } = await errorOf(client, "SELECT litmus_pgnats_register_responder($1, 'bytes')", [
        subject,
      ]);
      expect({ code, message }).toEqual({
        code: "22023",
        message: `requests to '${subject}' cannot be answered by a function`,
      });
      // What is published there can be of use.
      await client.query("SELECT nats_subscribe($1, 'one')", [subject]);
      await client.query("SELECT nats_unsubscribe($1, 'one')", [subject]);
    },
  );

  it.each([
    ["one", "the function public.one(bytea) RETURNS void"],
    ["wrong_result", "the function public.wrong_result(bytea) RETURNS text"],
    ["two", "the function public.two(bytea, text) RETURNS integer"],
    ["many", "the set-returning function public.many(bytea) RETURNS integer"],
  ])("refuses %s, with the list of what it takes", async (fn, what) => {
    expect(await errorOf(client, "SELECT litmus_pgnats_register_responder('rpc', $1)", [fn])).toMatchObject({
      code: "42883",
      message: `litmus_pgnats_register_responder: ${what} cannot be called for messages of NATS`,
      hint: responderForms,
    });
  });

  it("leaves one if many register at once", async () => {
    const sessions = await Promise.all(Array.from({ length: 6 }, () => world.connect(world.database.url)));
    await Promise.all(
      sessions.map((session, n) =>
        session.query("SELECT litmus_pgnats_register_responder('raced', $1)", [n % 2 === 0 ? "bytes" : "words"]),
      ),
    );
    expect(await world.bound("raced")).toHaveLength(1);
    await client.query("SELECT litmus_pgnats_unregister_responder('raced')");
  });

  it("does not replace that of a role that the caller is not in", async () => {
    const user = await world.user();
    await client.query("SELECT litmus_pgnats_register_responder('taken', 'bytes')");
    const session = await world.connect(user.url);
    for (const call of ["register_responder('taken', 'bytes')", "unregister_responder('taken')"]) {
      expect((await errorOf(session, `SELECT litmus_pgnats_${call}`)).code).toBe("42501");
    }
    await client.query("SELECT litmus_pgnats_unregister_responder('taken')");
  });
});
