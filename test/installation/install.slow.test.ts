/**
 * The NATS half of `hawser init`, installed by a superuser.
 */
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { errorTable } from "../../generated/ts/errors/errors.js";
import { natsFunctionsSql } from "../../generated/ts/nats-functions/sql.js";
import { HawserError } from "../../src/foundation/errors/index.js";
import { install, publicFunctionCount, usedDblinkFunctions } from "../../src/operating/installation/index.js";
import { type TestDatabase, testDatabase, testServerUrl } from "../support/database.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { catalogOf, oidsOf } from "./support/catalog.js";
import { complete as completeLogin, executorOf, loginSql } from "./support/executor.js";
import { codeOf, deadGateway, login, refusal } from "./support/logins.js";

const databases: TestDatabase[] = [];
let database: TestDatabase;

beforeEach(async () => {
  database = await testDatabase({ migrated: false });
  databases.push(database);
});
afterAll(async () => {
  for (const each of databases) await each.drop();
});

/** A copy of what an installation makes. */
async function installed(): Promise<TestDatabase> {
  const made = await testDatabase();
  databases.push(made);
  return made;
}

/** The error of an installation. */
async function failure(options: Parameters<typeof install>[0] = {}): Promise<HawserError> {
  const error = await install({ databaseUrl: database.url, ...options }).catch((thrown: unknown) => thrown);
  if (!(error instanceof HawserError)) throw new Error(`it did not fail: ${JSON.stringify(error)}`);
  return error;
}

const withoutShared = { dblinkSchema: "hawser_dblink", eventTriggers: true, warnings: [] };
const complete = { ...withoutShared, wrappers: ["litmus_pgnats_fdw", "pgnats_fdw"], functions: publicFunctionCount };

describe("installing NATS from SQL", () => {
  it("makes functions, wrappers, event triggers, dblink and the login, and says so", async () => {
    expect(await install({ databaseUrl: database.url })).toMatchObject({
      nats: { schema: "public", ...complete },
      missingPrivileges: [],
    });
    expect(await rowsOf(database.url, loginSql(await executorOf(database.url)))).toEqual([completeLogin]);
    expect(
      await rowsOf(
        database.url,
        `SELECT DISTINCT pg_get_userbyid(proowner) AS owner, prosecdef AS definer FROM pg_proc
          WHERE pronamespace = 'public'::regnamespace ORDER BY 2`,
      ),
    ).toEqual([
      // Those that make wrappers: their owner is to be the caller.
      { owner: "hawser_owner", definer: false },
      { owner: "hawser_owner", definer: true },
    ]);
    expect(
      await rowsOf(
        database.url,
        "SELECT proname AS name FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND NOT prosecdef ORDER BY 1",
      ),
    ).toEqual(
      [
        "litmus_pgnats_register_responder",
        "litmus_pgnats_unregister_responder",
        "nats_seek_stream",
        "nats_subscribe",
        "nats_subscribe_stream",
        "nats_unsubscribe",
        "nats_unsubscribe_stream",
        "pgnats_register_responder",
        "pgnats_unregister_responder",
      ].map((name) => ({ name })),
    );
  });

  it("changes nothing when it is run again", async () => {
    database = await installed();
    const before = { oids: await oidsOf(database.url), catalog: await catalogOf(database.url) };
    expect(await install({ databaseUrl: database.url })).toMatchObject({
      migrations: [],
      nats: complete,
      missingPrivileges: [],
    });
    expect({ oids: await oidsOf(database.url), catalog: await catalogOf(database.url) }).toEqual(before);
  });

  it("prints SQL that makes just what it would have made", async () => {
    const { sql, nats } = await install({ databaseUrl: database.url, dryRun: true });
    expect(nats).toMatchObject({ functions: 0, wrappers: [], eventTriggers: false });
    await onServer(database.url, sql!);
    await using real = await testDatabase({ migrated: false });
    await install({ databaseUrl: real.url });
    const made = await catalogOf(real.url);
    expect(made.length).toBeGreaterThan(150);
    expect(await catalogOf(database.url)).toEqual(made);
    // And again, over what is there.
    await onServer(real.url, (await install({ databaseUrl: real.url, dryRun: true })).sql!);
    expect(await catalogOf(real.url)).toEqual(made);
  });

  it("leaves all of it out for peers alone", async () => {
    expect(await install({ databaseUrl: database.url, nats: false })).toMatchObject({
      nats: null,
      missingPrivileges: [],
    });
    expect(await oidsOf(database.url)).not.toContainEqual(expect.objectContaining({ name: "dblink" }));
    expect((await install({ databaseUrl: database.url, dryRun: true, nats: false })).sql).not.toContain("dblink");
  });

  it("uses of dblink what it grants, and no more", () => {
    const called = [...natsFunctionsSql.matchAll(/@dblink@\.(\w+)\(/g)].map(([, name]) => name!);
    const granted = usedDblinkFunctions.map((signature) => signature.replace(/\(.*/, ""));
    expect([...new Set(called)].sort()).toEqual([...granted].sort());
  });

  it("gives back what was taken away: grants, a function, a wrapper, an event trigger, the closed door of dblink", async () => {
    database = await installed();
    const before = await catalogOf(database.url);
    await onServer(
      database.url,
      "DROP FUNCTION nats_flush()",
      "GRANT EXECUTE ON FUNCTION nats_publish_text(text, text, text, jsonb) TO PUBLIC",
      "REVOKE EXECUTE ON FUNCTION nats_publish_json(text, json, text, jsonb) FROM hawser_nats",
      "ALTER FUNCTION nats_get_text(text, text, text) SECURITY INVOKER",
      "DROP FOREIGN DATA WRAPPER pgnats_fdw",
      "DROP EVENT TRIGGER hawser_nats_server_drop",
      "CREATE EVENT TRIGGER hawser_nats_server_drop ON sql_drop EXECUTE FUNCTION hawser_fdw.follow_nats_ddl()",
      "GRANT USAGE ON SCHEMA hawser_dblink TO PUBLIC",
      "REVOKE EXECUTE ON FUNCTION hawser_dblink.dblink(text, text) FROM hawser_owner",
    );
    expect((await install({ databaseUrl: database.url })).nats).toMatchObject(complete);
    expect((await catalogOf(database.url)).toSorted()).toEqual(before.toSorted());
  });

  it("drops what an earlier version had or declared otherwise, and leaves functions of others alone", async () => {
    database = await installed();
    const old = (name: string, returns: string, calls = "hawser.gateway_call(''Old {}'')") => [
      `CREATE FUNCTION ${name} RETURNS ${returns} LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
         AS 'BEGIN PERFORM ${calls}; END'`,
      `ALTER FUNCTION ${name.replaceAll(/\w+ (text)/g, "$1")} OWNER TO hawser_owner`,
    ];
    await onServer(
      database.url,
      ...old("nats_publish_text(subject text)", "void"),
      "DROP FUNCTION nats_flush()",
      ...old("nats_flush()", "text"),
      ...old("nats_enqueue_text(subject text)", "bigint", "hawser.enqueue_nats(subject)"),
      "CREATE FUNCTION nats_of_mine(subject text) RETURNS void LANGUAGE sql AS ''",
    );
    expect((await install({ databaseUrl: database.url })).nats).toMatchObject(complete);
    expect(
      await rowsOf(
        database.url,
        `SELECT oid::regprocedure::text AS name, prorettype::regtype::text AS type FROM pg_proc
          WHERE proname ~ '^(nats_flush|nats_of_mine|nats_publish_text|nats_enqueue.*)$' ORDER BY 1`,
      ),
    ).toEqual([
      { name: "nats_flush()", type: "void" },
      { name: "nats_of_mine(text)", type: "void" },
      { name: "nats_publish_text(text,text,text,jsonb)", type: "void" },
    ]);
  });

  it("does not drop what depends on a function that has changed, and names it", async () => {
    database = await installed();
    await onServer(
      database.url,
      "DROP FUNCTION nats_flush()",
      `CREATE FUNCTION nats_flush() RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
         AS 'BEGIN RETURN hawser.gateway_call(''Old {}''); END'`,
      "CREATE VIEW flushed AS SELECT nats_flush()",
    );
    const error = await failure();
    expect(error).toMatchObject({ code: "name_occupied", message: expect.stringContaining("view public.flushed") });
  });

  describe("in a schema of the user's choice", () => {
    it.each(["bus", "weiß mit Leerzeichen;--a.b"])("%j", async (schema) => {
      const quoted = `"${schema}"`;
      await onServer(database.url, `CREATE SCHEMA ${quoted}`);
      expect(await install({ databaseUrl: database.url, nats: { schema } })).toMatchObject({
        nats: { schema, ...complete },
        missingPrivileges: [],
      });
      await deadGateway(database.url);
      await using caller = await login(database.url, "IN ROLE hawser_nats");
      expect(await codeOf(caller.url, `SELECT ${quoted}.nats_publish_text('a', 'b')`)).toBe("08001");
      const before = await oidsOf(database.url);
      await install({ databaseUrl: database.url, nats: { schema } });
      expect(await oidsOf(database.url)).toEqual(before);
    });

    it("refuses others, and does nothing", async () => {
      await onServer(database.url, 'CREATE SCHEMA "Select ""x"""');
      const unusable = ["nowhere", "", "pg_catalog", "hawser", "hawser_dblink", "it's", "$do$", "a@b", "x".repeat(64)];
      for (const schema of [...unusable, 'Select "x"']) {
        expect(await failure({ nats: { schema } }), schema).toMatchObject({ code: "invalid_argument" });
      }
      expect(await rowsOf(database.url, "SELECT FROM pg_namespace WHERE nspname ~ '^hawser'")).toEqual([]);
    });

    it("refuses a second one", async () => {
      await onServer(database.url, "CREATE SCHEMA bus");
      await install({ databaseUrl: database.url, nats: { schema: "bus" } });
      const error = await failure();
      expect(error.code).toBe("name_occupied");
      expect(error.message).toContain('installed in the schema "bus"');
      expect(error.message).toContain("hawser uninstall");
    });
  });

  describe("refuses, before anything is done,", () => {
    const untouched = () => rowsOf(database.url, "SELECT FROM pg_namespace WHERE nspname ~ '^hawser'");

    it("a database that is not UTF-8, but not for peers alone", async () => {
      const name = `${database.name}_ascii`;
      await onServer(testServerUrl(), `CREATE DATABASE ${name} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'`);
      try {
        const url = new URL(database.url);
        url.pathname = `/${name}`;
        const error = await install({ databaseUrl: url.href }).catch((thrown: unknown) => thrown);
        expect(error).toMatchObject({
          code: "not_supported",
          message: expect.stringContaining("encoding is SQL_ASCII"),
        });
        expect((error as Error).message).toContain("--no-nats");
        expect(await install({ databaseUrl: url.href, nats: false })).toMatchObject({
          nats: null,
          missingPrivileges: [],
        });
      } finally {
        await onServer(testServerUrl(), `DROP DATABASE ${name}`);
      }
    });

    it.each(["pgnats", "litmus_pgnats"])("the native extension %s", async (extension) => {
      // Its library is not to be had here: an extension in C under its name is what can be seen of it.
      await rowsOf(
        database.url,
        `SET allow_system_table_mods = on; CREATE EXTENSION pg_trgm; UPDATE pg_extension SET extname = '${extension}' WHERE extname = 'pg_trgm'`,
      );
      const error = await failure();
      expect(error).toMatchObject({ code: "native_extension", message: expect.stringContaining(`(${extension})`) });
      expect(await untouched()).toEqual([]);
      expect(await install({ databaseUrl: database.url, nats: false })).toMatchObject({ nats: null });
    });

    it("functions of others in the place of its own, and names them", async () => {
      await using other = await login(database.url);
      await onServer(
        database.url,
        "CREATE FUNCTION nats_flush() RETURNS void LANGUAGE sql AS ''",
        // Made to look like ours by someone who could keep the rights to it.
        `CREATE FUNCTION nats_delete_value(bucket text, key text, domain text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
           SET search_path = pg_catalog, pg_temp AS 'BEGIN PERFORM hawser.gateway_call(NULL); END'`,
        `ALTER FUNCTION nats_delete_value OWNER TO ${other.role}`,
        // Other arguments are no conflict.
        "CREATE FUNCTION nats_put_text(one text) RETURNS void LANGUAGE sql AS ''",
      );
      const error = await failure();
      expect(error.code).toBe("name_occupied");
      expect(error.message).toContain('public.nats_flush() of "postgres"');
      expect(error.message).toContain(`public.nats_delete_value(text,text,text) of "${other.role}"`);
      expect(error.message).not.toContain("nats_put_text");
      expect(await untouched()).toEqual([]);
    });

    it("a wrapper with another validator, and an event trigger with another function", async () => {
      await onServer(
        database.url,
        "CREATE FOREIGN DATA WRAPPER pgnats_fdw VALIDATOR postgresql_fdw_validator",
        "CREATE FUNCTION mine() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
        "CREATE EVENT TRIGGER hawser_nats_server_drop ON sql_drop EXECUTE FUNCTION mine()",
      );
      expect((await failure()).message).toContain("pgnats_fdw has the validator postgresql_fdw_validator");
      await onServer(database.url, "DROP FOREIGN DATA WRAPPER pgnats_fdw");
      expect(await failure()).toMatchObject({
        code: "name_occupied",
        message: expect.stringContaining("hawser_nats_server_drop calls public.mine()"),
      });
      expect(await untouched()).toEqual([]);
    });

    it("a schema for dblink that belongs to somebody else", async () => {
      await using other = await login(database.url);
      await onServer(database.url, `CREATE SCHEMA hawser_dblink AUTHORIZATION ${other.role}`);
      expect(await failure()).toMatchObject({ code: "name_occupied", message: expect.stringContaining(other.role) });
    });
  });

  it("gives a wrapper that was made beforehand its validator", async () => {
    await onServer(database.url, "CREATE FOREIGN DATA WRAPPER litmus_pgnats_fdw");
    expect(await install({ databaseUrl: database.url })).toMatchObject({ nats: complete, missingPrivileges: [] });
    expect(
      await codeOf(database.url, "CREATE SERVER s FOREIGN DATA WRAPPER litmus_pgnats_fdw OPTIONS (no_such 'x')"),
    ).not.toBe("none");
  });

  it("warns of secrets that every role can read, by the name of the option alone, and of a second server", async () => {
    database = await installed();
    await onServer(
      database.url,
      `CREATE SERVER first FOREIGN DATA WRAPPER pgnats_fdw OPTIONS (username 'u', password 'a-secret-word')`,
      "ALTER EVENT TRIGGER hawser_nats_server_follow DISABLE",
      "CREATE SERVER second FOREIGN DATA WRAPPER litmus_pgnats_fdw OPTIONS (token_path '/run/secrets/token')",
    );
    const { nats } = await install({ databaseUrl: database.url });
    expect(nats!.warnings).toEqual([
      expect.stringContaining('every role can read the option password of the foreign server "first"'),
      expect.stringContaining('here 2 are defined: "first", "second"'),
      expect.stringContaining("hawser_nats_server_follow is disabled"),
    ]);
    expect(nats!.eventTriggers).toBe(false);
    expect(JSON.stringify(nats)).not.toContain("a-secret-word");
  });

  it("has a function say without a gateway that nothing was sent, why, and what to do", async () => {
    database = await installed();
    const hint = errorTable.gateway_unavailable.remedy;
    const call = "SELECT nats_publish_text('a', 'b')";
    expect(await refusal(database.url, call)).toMatchObject({
      code: "08001",
      message: "the gateway cannot be reached, and nothing was sent",
      detail: "no gateway is entered for this database: none runs",
      hint,
    });
    await deadGateway(database.url);
    const error = await refusal(database.url, call);
    expect(error).toMatchObject({ code: "08001", hint, detail: expect.stringContaining("127.0.0.1") });
    const [{ password }] = (await rowsOf(database.url, "SELECT password FROM hawser_bridge_data.gateway_secret")) as [
      { password: string },
    ];
    expect(JSON.stringify([error, error!.message, error!.where])).not.toContain(password);
  });
});
