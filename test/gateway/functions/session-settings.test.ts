/**
 * Sessions that are set up in their own way: the results are the same, and the settings stay as they were.
 */
import type pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type TestGateway, testGateway } from "../../support/gateway.js";
import { callEveryFunction, prepareSamples } from "./every-function.js";
import { Witness } from "./witness.js";

let gateway: TestGateway;
beforeAll(async () => {
  gateway = await testGateway();
  await gateway.client.query(hostile);
});
afterAll(() => gateway?.[Symbol.asyncDispose]());

/** What would be called in the place of functions and operators of Postgres by code that relies on the search path. */
const hostile = `
  CREATE SCHEMA evil;
  CREATE FUNCTION evil.trap() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hijacked'; END $$;
  CREATE FUNCTION evil.concatenate(text, text) RETURNS text LANGUAGE sql AS $$ SELECT evil.trap(); SELECT ''::text $$;
  CREATE OPERATOR evil.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.concatenate);
  CREATE FUNCTION evil.same(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT evil.trap(); SELECT true $$;
  CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.same);
  CREATE OPERATOR evil.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.same);
  CREATE FUNCTION evil.encode(bytea, text) RETURNS text LANGUAGE sql AS $$ SELECT evil.trap(); SELECT ''::text $$;
  CREATE FUNCTION evil.convert_to(text, name) RETURNS bytea LANGUAGE sql AS $$ SELECT evil.trap(); SELECT ''::bytea $$;
  CREATE FUNCTION evil.translate(text, text, text) RETURNS text LANGUAGE sql AS $$ SELECT evil.trap(); SELECT ''::text $$;
  CREATE FUNCTION evil.to_json(anyelement) RETURNS json LANGUAGE sql AS $$ SELECT evil.trap(); SELECT '1'::json $$;
  CREATE FUNCTION evil.octet_length(text) RETURNS integer LANGUAGE sql AS $$ SELECT evil.trap(); SELECT 1 $$;
  CREATE FUNCTION evil.current_setting(text) RETURNS text LANGUAGE sql AS $$ SELECT evil.trap(); SELECT ''::text $$;
  CREATE FUNCTION evil.gateway_call(text) RETURNS text LANGUAGE sql AS $$ SELECT evil.trap(); SELECT ''::text $$;
  CREATE FUNCTION evil.dblink(text, text) RETURNS SETOF record LANGUAGE sql AS $$ SELECT evil.trap(); SELECT 1 $$;
  CREATE DOMAIN evil.text AS integer;
  CREATE DOMAIN evil.jsonb AS integer;
`;

const hostilePath = [
  "SET search_path = evil, pg_temp, pg_catalog, public",
  "CREATE TEMP TABLE gateways (host pg_catalog.text, port integer)",
  "CREATE TEMP TABLE pg_proc (oid oid)",
];

const settings: readonly (readonly [string, readonly string[]])[] = [
  ["bytea as escapes", ["SET bytea_output = escape"]],
  ["another encoding of the client", ["SET client_encoding = LATIN1"]],
  [
    "dates and times in another style",
    ["SET DateStyle = 'SQL, DMY'", "SET IntervalStyle = sql_standard", "SET TimeZone = 'Pacific/Chatham'"],
  ],
  ["few digits of floating-point numbers", ["SET extra_float_digits = -15"]],
  [
    "strings with backslashes",
    ["SET standard_conforming_strings = off", "SET escape_string_warning = on", "SET backslash_quote = off"],
  ],
  ["identifiers quoted always", ["SET quote_all_identifiers = on"]],
  ["NULL in arrays not read", ["SET array_nulls = off"]],
  ["= NULL read as IS NULL", ["SET transform_null_equals = on"]],
  [
    "read-only and serializable transactions by default",
    ["SET default_transaction_read_only = on", "SET default_transaction_isolation = serializable"],
  ],
  [
    "parallel queries forced",
    ["SET debug_parallel_query = on", "SET parallel_setup_cost = 0", "SET min_parallel_table_scan_size = 0"],
  ],
  ["checks of PL/pgSQL", ["SET plpgsql.extra_errors = 'all'", "SET plpgsql.variable_conflict = 'use_column'"]],
  ["triggers of a replica", ["SET session_replication_role = replica"]],
  ["no row security", ["SET row_security = off"]],
  ["messages for debugging", ["SET client_min_messages = debug2"]],
  ["plans made anew", ["SET plan_cache_mode = force_custom_plan"]],
  ["a hostile search path", hostilePath],
  ["no search path but public", ["SET search_path = public"]],
];

/** All settings, those that say how they are meant to be among them. */
async function settingsOf(session: pg.Client): Promise<Record<string, unknown>[]> {
  const sql =
    'SELECT s.name, s.setting, s.source FROM pg_catalog.pg_settings AS s ORDER BY s.name COLLATE pg_catalog."C"';
  return (await session.query(sql)).rows;
}

it.each(settings)("every function does the same with %s, and leaves the settings alone", async (name, statements) => {
  const word = `settings_${settings.findIndex(([one]) => one === name)}`;
  const session = await gateway.connect();
  try {
    for (const statement of statements) {
      // The name before Postgres 16.
      const older = statement.replace("debug_parallel_query", "force_parallel_mode");
      await session.query(statement).catch(() => session.query(older));
    }
    // So that those of PL/pgSQL are there.
    await session.query("DO 'BEGIN END'");
    const before = await settingsOf(session);
    const witness = await Witness.open(gateway.nats, `${word}.>`);
    await prepareSamples(witness, word);
    await callEveryFunction(word, witness, async (sql) => (await session.query(qualified(sql))).rows);
    expect(await settingsOf(session)).toEqual(before);
    witness.close();
  } finally {
    await session.end();
  }
});

/** The types of the sample calls as nobody can take their place. */
function qualified(sql: string): string {
  return sql.replace(/::(text|json|jsonb|bytea)\b/g, "::pg_catalog.$1");
}

it("the errors are the same in another language of messages, as far as the server has one", async () => {
  const session = await gateway.connect();
  try {
    for (const locale of ["C", "POSIX", "de_DE.UTF-8", "fr_FR.UTF-8", "ja_JP.UTF-8"]) {
      await session.query(
        `DO $$ BEGIN PERFORM set_config('lc_messages', '${locale}', false); EXCEPTION WHEN OTHERS THEN NULL; END $$`,
      );
      await expect(session.query("SELECT nats_request_text('settings.nobody', 'x', 1000)")).rejects.toMatchObject({
        code: "NA002",
      });
      // After an error the session asks whether its connection lives.
      const { rows } = await session.query("SELECT nats_put_text('settings_locale', 'k', 'v') > 0 AS done");
      expect(rows).toEqual([{ done: true }]);
    }
  } finally {
    await session.end();
  }
});

it("text that the client's encoding has no characters for is carried all the same", async () => {
  const session = await gateway.connect();
  try {
    await session.query("SET client_encoding = LATIN1");
    const text = "chr(228) || chr(8364) || chr(128755)";
    await session.query(`SELECT nats_put_text('settings_latin1', 'k', ${text})`);
    const witness = await Witness.open(gateway.nats, "settings_latin1.>");
    expect((await witness.value("settings_latin1", "k"))?.string()).toBe("ä€\u{1f6f3}");
    const { rows } = await session.query(`SELECT nats_get_text('settings_latin1', 'k') = ${text} AS same`);
    expect(rows).toEqual([{ same: true }]);
    await session.query(
      `SELECT nats_publish_text('settings_latin1.' || chr(8364), ${text}, NULL, jsonb_build_object('A', ${text}))`,
    );
    const message = await witness.message();
    expect([message.subject, message.string(), message.headers?.get("A")]).toEqual([
      "settings_latin1.€",
      "ä€\u{1f6f3}",
      "ä€\u{1f6f3}",
    ]);
    await session.query(`SELECT nats_publish_text_batch('settings_latin1.x', ARRAY[${text}, chr(233)])`);
    expect((await witness.messages(2)).map((one) => one.string())).toEqual(["ä€\u{1f6f3}", "é"]);
  } finally {
    await session.end();
  }
});

it("DISCARD ALL, which poolers send between their clients, leaves the functions working", async () => {
  const session = await gateway.connect();
  try {
    for (let round = 1; round <= 3; round++) {
      const { rows } = await session.query(`SELECT nats_put_text('settings_discard', 'k', '${round}') AS revision`);
      expect(rows).toEqual([{ revision: `${round}` }]);
      await session.query("DISCARD ALL");
    }
  } finally {
    await session.end();
  }
});
