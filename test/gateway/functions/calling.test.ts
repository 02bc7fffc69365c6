/**
 * SQL functions, called in the ways and places in which SQL calls functions, and in sessions with settings of their own. Every
 * function in each of these ways is in the slow tier.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestGateway, testGateway } from "../../support/gateway.js";
import { everyFunction, everyFunctionIn, inTransaction } from "./calling-ways.js";
import { prepareSamples } from "./every-function.js";
import { Witness } from "./witness.js";

let gateway: TestGateway;
beforeAll(async () => {
  gateway = await testGateway();
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

describe("every function does its work", () => {
  it("with its arguments by position", async () => {
    await everyFunction(gateway, "calls_position");
  });

  it("in a session with a hostile search path, whose settings it leaves alone", async () => {
    await gateway.client.query(hostile);
    await everyFunctionIn(gateway, "calls_hostile", [
      "SET search_path = evil, pg_temp, pg_catalog, public",
      "CREATE TEMP TABLE gateways (host pg_catalog.text, port integer)",
      "CREATE TEMP TABLE pg_proc (oid oid)",
    ]);
  });
});

describe("a call does its work", () => {
  it("without the optional arguments, or with NULL for them", async () => {
    const witness = await Witness.open(gateway.nats, "calls_short.>");
    await prepareSamples(witness, "calls_short");
    const value = (sql: string) => gateway.value(sql);
    await value("SELECT nats_publish_text('calls_short.core', 'x')");
    await value("SELECT nats_publish_text_stream('calls_short.stream.x', 'x')");
    await value("SELECT nats_publish_text_batch('calls_short.core', ARRAY['x', 'x'])");
    await value("SELECT nats_publish_text('calls_short.core', 'x', NULL, NULL)");
    const seen = await witness.messages(5);
    expect(seen.map((one) => [one.string(), one.reply?.split(".")[0] ?? ""])).toEqual([
      ["x", ""],
      ["x", expect.stringMatching(/^_INBOX/)],
      ["x", ""],
      ["x", ""],
      ["x", ""],
    ]);
    expect(seen.at(-1)!.headers).toBeUndefined();
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

  it("as a prepared statement whose plan is made once and used again", async () => {
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
    const [row] = await inTransaction(gateway, "SELECT nats_put_text('calls_transaction', 'k', 'v') AS revision");
    expect(row).toEqual({ revision: "1" });
    expect(await gateway.value("SELECT nats_get_text('calls_transaction', 'k')")).toBe("v");
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
