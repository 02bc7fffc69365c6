/**
 * Every function, called in the ways and places in which SQL calls functions, in sessions that are set up in their own way.
 */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestGateway, testGateway } from "../../support/gateway.js";
import {
  byName,
  byPosition,
  callEveryFunction,
  isOptional,
  prepareSamples,
  type SampleCall,
} from "./every-function.js";
import { referenceFunctions } from "./reference-table.js";
import { Witness } from "./witness.js";

let gateway: TestGateway;
beforeAll(async () => {
  gateway = await testGateway();
  await gateway.client.query(hostile);
});
afterAll(() => gateway?.[Symbol.asyncDispose]());

/** Objects that code which relies on the search path would call instead of functions and operators of Postgres. */
const hostile = `
  CREATE SCHEMA evil;
  GRANT USAGE ON SCHEMA evil TO PUBLIC;
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

type Run = (sql: string, call: SampleCall) => Promise<Record<string, unknown>[]>;
const rowsOf = async (sql: string) => (await gateway.client.query(sql)).rows;

/** Calls them all with a witness that sees the messages below the word. */
async function everyFunction(word: string, run: Run = rowsOf, write = byPosition): Promise<Witness> {
  const witness = await Witness.open(gateway.nats, `${word}.>`);
  await prepareSamples(witness, word);
  await callEveryFunction(word, witness, run, write);
  return witness;
}

/** Calls a function in the body of another one, which `create` makes. */
const inside =
  (create: (sql: string, result: string) => string): Run =>
  async (sql, { name }) => {
    const { result } = referenceFunctions.find((one) => one.name === name)!;
    await gateway.client.query(`CREATE FUNCTION pg_temp.around() RETURNS ${result} ${create(sql, result)}`);
    const rows = await rowsOf(`SELECT * FROM pg_temp.around() AS ${name}`);
    await gateway.client.query("DROP FUNCTION pg_temp.around()");
    return rows;
  };

describe("every function does its work", () => {
  it("with its arguments by position", async () => {
    await everyFunction("calls_position");
  });

  it("with its arguments by name, in any order", async () => {
    await everyFunction("calls_name", rowsOf, byName);
  });

  it("with NULL for what is optional, which means the default", async () => {
    // What the sample calls look for afterwards.
    const needed = (fn: string) => (/_(create|update)_stream$/.test(fn) ? /^(?!domain$)/ : /^(headers|reply)$/);
    const isNull = (fn: string, parameter: string) => isOptional(fn, parameter) && !needed(fn).test(parameter);
    const witness = await everyFunction("calls_null", rowsOf, (call) => {
      const given = Object.entries(call.given).map(([name, literal]) => [
        name,
        isNull(call.name, name) ? "NULL" : literal,
      ]);
      return byPosition({ ...call, given: Object.fromEntries(given) });
    });
    await gateway.value("SELECT nats_publish_text('calls_null.core', 'x', NULL, NULL)");
    const message = await witness.message();
    expect([message.reply ?? "", message.headers]).toEqual(["", undefined]);
  });

  it("without the optional arguments", async () => {
    const witness = await Witness.open(gateway.nats, "calls_short.>");
    await prepareSamples(witness, "calls_short");
    const value = (sql: string) => gateway.value(sql);
    await value("SELECT nats_publish_text('calls_short.core', 'x')");
    await value("SELECT nats_publish_text_stream('calls_short.stream.x', 'x')");
    await value("SELECT nats_publish_text_batch('calls_short.core', ARRAY['x', 'x'])");
    const seen = await witness.messages(4);
    expect(seen.map((one) => [one.string(), one.reply?.split(".")[0] ?? ""])).toEqual([
      ["x", ""],
      ["x", expect.stringMatching(/^_INBOX/)],
      ["x", ""],
      ["x", ""],
    ]);
    expect(await value("SELECT nats_put_text('calls_short', 'k', 'v')")).toBe("1");
    expect(await value("SELECT nats_get_text('calls_short', 'k')")).toBe("v");
    await value("SELECT nats_delete_value('calls_short', 'k')");
    expect(await witness.value("calls_short", "k")).toMatchObject({ operation: "DEL" });
    await value("SELECT nats_create_stream('calls_short_made', '{calls_short.made}')");
    await value("SELECT nats_update_stream('calls_short_made')");
    expect((await witness.manager.streams.info("calls_short_made")).config).toMatchObject({
      ...{ subjects: ["calls_short.made"], storage: "file", retention: "limits", max_msgs: -1, max_age: 0 },
    });
    await value("SELECT nats_delete_stream('calls_short_made')");
    await value("SELECT nats_put_file('calls_short', 'f', 'c')");
    expect(await value("SELECT nats_get_file('calls_short', 'f')")).toEqual(Buffer.from("c"));
    expect(await value("SELECT count(*) FROM nats_get_file_list('calls_short')")).toBe("1");
    await value("SELECT nats_delete_file('calls_short', 'f')");
    expect(await witness.file("calls_short", "f")).toBeUndefined();
  });

  it("as prepared statements, with their plans made once and used again", async () => {
    let number = 0;
    await everyFunction("calls_prepared", async (sql) => {
      const name = `call_${++number}`;
      await gateway.client.query(`SET plan_cache_mode = force_generic_plan; PREPARE ${name} AS ${sql}`);
      return rowsOf(`EXECUTE ${name}`);
    });
    await gateway.client.query("RESET plan_cache_mode");
    const witness = await Witness.open(gateway.nats, "calls_parameters.>");
    for (let round = 0; round < 8; round++) {
      const text = "SELECT nats_publish_text($1, $2, $3, $4)";
      const values = [`calls_parameters.${round}`, `payload ${round}`, null, { N: `${round}` }];
      await gateway.client.query({ name: "publish", text, values });
      const message = await witness.message();
      expect([message.subject, message.string(), message.headers?.get("N")]).toEqual([
        `calls_parameters.${round}`,
        `payload ${round}`,
        `${round}`,
      ]);
    }
  });

  it("in a serializable, read-only, deferrable transaction, below savepoints, that goes on after errors", async () => {
    const failing = async () => {
      await gateway.client.query("SAVEPOINT a");
      expect(await gateway.errorOf("SELECT nats_publish_text('no good', 'x')")).toMatchObject({ code: "22023" });
      await gateway.client.query("ROLLBACK TO SAVEPOINT a");
    };
    await everyFunction("calls_transaction", async (sql) => {
      await gateway.client.query("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE; SAVEPOINT outermost");
      await failing();
      const rows = await rowsOf(sql);
      await gateway.client.query("RELEASE SAVEPOINT outermost");
      await failing();
      await gateway.client.query("COMMIT");
      return rows;
    });
  });

  it("inside functions of SQL", async () => {
    await everyFunction(
      "calls_sql",
      inside((sql) => `LANGUAGE sql AS $$ ${sql} $$`),
    );
  });

  it("inside functions of PL/pgSQL, in blocks with EXCEPTION, after one that was caught", async () => {
    const inPlpgsql = inside((sql, result) => {
      const call = sql.replace("SELECT * FROM ", "");
      const isTable = result.startsWith("TABLE");
      const body = isTable ? `RETURN QUERY ${sql};` : result === "void" ? `PERFORM ${call};` : `RETURN ${call};`;
      return `LANGUAGE plpgsql AS $$
        BEGIN
          BEGIN
            PERFORM nats_request_text('nobody_listens_here', 'x', 1000);
            RAISE EXCEPTION 'somebody answered';
          EXCEPTION
            WHEN SQLSTATE 'NA002' THEN NULL;
          END;
          BEGIN
            ${body}
          EXCEPTION
            WHEN division_by_zero THEN RAISE;
          END;
        END
        $$`;
    });
    await everyFunction("calls_plpgsql", inPlpgsql);
  });

  it("in a DO block, whose rollback takes nothing back", async () => {
    const witness = await Witness.open(gateway.nats, "calls_do.>");
    const error = await gateway.errorOf(`
      DO $$
      DECLARE
        revision bigint;
      BEGIN
        PERFORM nats_publish_text('calls_do.told', 'before');
        revision := nats_put_text('calls_do', 'k', 'v');
        RAISE EXCEPTION 'revision %', revision;
      END
      $$`);
    expect(error.message).toBe("revision 1");
    expect((await witness.message()).string()).toBe("before");
    expect((await witness.value("calls_do", "k"))?.string()).toBe("v");
  });

  it("over many rows of one statement, in order", async () => {
    const witness = await Witness.open(gateway.nats, "calls_rows.>");
    await gateway.value("SELECT count(nats_publish_text('calls_rows.n', n::text)) FROM generate_series(1, 500) AS n");
    const seen = await witness.messages(500);
    expect(seen.map((one) => one.string())).toEqual(Array.from({ length: 500 }, (_, index) => `${index + 1}`));
  });
});

const sessions: Readonly<Record<string, readonly string[]>> = {
  "other settings of all kinds": [
    "SET bytea_output = escape",
    "SET client_encoding = LATIN1",
    "SET DateStyle = 'SQL, DMY'",
    "SET IntervalStyle = sql_standard",
    "SET TimeZone = 'Pacific/Chatham'",
    "SET extra_float_digits = -15",
    "SET standard_conforming_strings = off",
    "SET escape_string_warning = on",
    "SET backslash_quote = off",
    "SET quote_all_identifiers = on",
    "SET array_nulls = off",
    "SET transform_null_equals = on",
    "SET default_transaction_read_only = on",
    "SET default_transaction_isolation = serializable",
    "SET session_replication_role = replica",
    "SET row_security = off",
    "SET client_min_messages = debug2",
  ],
  "other plans": [
    "SET debug_parallel_query = on",
    "SET parallel_setup_cost = 0",
    "SET min_parallel_table_scan_size = 0",
    "SET plan_cache_mode = force_custom_plan",
    "SET plpgsql.extra_errors = 'all'",
    "SET plpgsql.variable_conflict = 'use_column'",
    "SET search_path = public",
  ],
  "a hostile search path": [
    "SET search_path = evil, pg_temp, pg_catalog, public",
    "CREATE TEMP TABLE gateways (host pg_catalog.text, port integer)",
    "CREATE TEMP TABLE pg_proc (oid oid)",
  ],
};

/** All settings, those that say how they are meant to be among them. */
async function settingsOf(session: pg.Client): Promise<Record<string, unknown>[]> {
  const sql =
    'SELECT s.name, s.setting, s.source FROM pg_catalog.pg_settings AS s ORDER BY s.name COLLATE pg_catalog."C"';
  return (await session.query(sql)).rows;
}

/** The types of the sample calls as nobody can take their place. */
function qualified(sql: string): string {
  return sql.replace(/::(text|json|jsonb|bytea)\b/g, "::pg_catalog.$1");
}

it.each(Object.entries(sessions))(
  "every function does the same with %s, and leaves them alone",
  async (name, given) => {
    const session = await gateway.connect();
    try {
      for (const statement of given) {
        // The name before Postgres 16.
        const older = statement.replace("debug_parallel_query", "force_parallel_mode");
        await session.query(statement).catch(() => session.query(older));
      }
      // So that those of PL/pgSQL are there.
      await session.query("DO 'BEGIN END'");
      const before = await settingsOf(session);
      await everyFunction(
        `settings_${Object.keys(sessions).indexOf(name)}`,
        async (sql) => (await session.query(qualified(sql))).rows,
      );
      expect(await settingsOf(session)).toEqual(before);
    } finally {
      await session.end();
    }
  },
);

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
