/**
 * Who cannot do what with an installation of NATS from SQL.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { HawserError } from "../../src/foundation/errors/index.js";
import { install, usedDblinkFunctions } from "../../src/operating/installation/index.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { installedDatabase } from "./support/installed.js";
import { codeOf, deadGateway, errorsOf, type Login, login, outcomesOf, refusal } from "./support/logins.js";
import { traps } from "./support/traps.js";

const denied = "42501";

/** Statements that neither login may run. */
const forbidden = [
  "SELECT FROM hawser_bridge_data.gateway_secret",
  "SELECT FROM hawser_bridge_data.nats_server",
  "SELECT FROM hawser_bridge_data.gateways",
  "INSERT INTO hawser_bridge_data.gateways (host, port) VALUES ('evil', 1)",
  "UPDATE hawser_bridge_data.nats_server SET options = '{}'",
  "SELECT hawser.gateway_conninfo()",
  "SELECT hawser.gateway_call('Publish {}')",
  "SELECT hawser.gateway_lost('', 1)",
  "SELECT hawser.set_nats_server('{}')",
  "SELECT hawser.follow_nats_server()",
  "SELECT * FROM hawser.nats_foreign_servers()",
  "SELECT hawser_dblink.dblink_connect('hawser', 'host=evil password=x')",
  "SELECT hawser_dblink.dblink_connect_u('hawser', 'host=evil')",
  "SELECT * FROM hawser_dblink.dblink('hawser', 'Publish {}') AS r (r text)",
  "SELECT hawser_dblink.dblink_disconnect('hawser')",
  "SELECT hawser_dblink.dblink_get_connections()",
  "CREATE SERVER mine FOREIGN DATA WRAPPER litmus_pgnats_fdw",
  "CREATE SERVER mine FOREIGN DATA WRAPPER dblink_fdw",
  "CREATE FUNCTION pg_temp.mine(text, text) RETURNS text LANGUAGE c AS '$libdir/dblink', 'dblink_connect'",
  "CREATE FUNCTION hawser_dblink.dblink_connect(text, varchar) RETURNS text LANGUAGE sql AS ''",
  "CREATE FUNCTION hawser.mine() RETURNS text LANGUAGE sql AS ''",
  "CREATE OR REPLACE FUNCTION public.nats_flush() RETURNS void LANGUAGE sql AS ''",
  "ALTER FUNCTION public.nats_flush() SECURITY INVOKER",
  "ALTER FUNCTION public.nats_flush() RESET search_path",
  "DROP FUNCTION public.nats_flush()",
  "ALTER EXTENSION dblink SET SCHEMA public",
  "DROP EXTENSION dblink",
  "DROP EVENT TRIGGER hawser_nats_server_follow",
  "DROP FOREIGN DATA WRAPPER pgnats_fdw",
  "GRANT USAGE ON SCHEMA hawser_dblink TO PUBLIC",
  "SET ROLE hawser_owner",
];

describe("in a database with NATS from SQL", () => {
  let database: TestDatabase;
  let stranger: Login & AsyncDisposable;
  let caller: Login & AsyncDisposable;

  beforeAll(async () => {
    database = await installedDatabase();
    await deadGateway(database.url);
    stranger = await login(database.url);
    caller = await login(database.url, "IN ROLE hawser_nats");
    await onServer(database.url, `GRANT CREATE ON DATABASE ${database.name} TO ${stranger.role}, ${caller.role}`);
  });
  afterAll(async () => {
    await stranger?.[Symbol.asyncDispose]();
    await caller?.[Symbol.asyncDispose]();
    await database?.drop();
  });

  /** A call of each function, with NULL for all arguments. */
  async function calls(): Promise<string[]> {
    const rows = await rowsOf(
      database.url,
      `SELECT format('SELECT * FROM %I.%I(%s)', pronamespace::regnamespace, proname, (
                SELECT string_agg(format('NULL::%s', t::regtype), ', ') FROM unnest(proargtypes) AS t)) AS call
         FROM pg_proc WHERE pronamespace = 'public'::regnamespace`,
    );
    return rows.map(({ call }) => call as string);
  }

  it("a login without hawser_nats can call no function", async () => {
    const all = await calls();
    expect(all.length).toBeGreaterThan(40);
    expect(await outcomesOf(stranger.url, all)).toEqual(all.map((call) => [call, denied]));
  });

  it("a login with hawser_nats can call all of them", async () => {
    const all = await calls();
    const wanted = (call: string) => {
      // Those that do not reach the gateway: the version, and what refuses NULL.
      const isLocal = /subscribe\(|responder\(|_enqueue_|(subscribe|seek)_stream\(/.test(call);
      return call.includes("_version(") ? "none" : isLocal ? "22004" : "08001";
    };
    expect(await outcomesOf(caller.url, all)).toEqual(all.map((call) => [call, wanted(call)]));
  });

  it("neither login may read or change what is Hawser's, use dblink, or make anything in its place", async () => {
    for (const { url } of [stranger, caller]) {
      expect(await outcomesOf(url, forbidden)).toEqual(forbidden.map((statement) => [statement, denied]));
    }
  });

  it("a second dblink cannot be had: not by the extension, not by its library", async () => {
    for (const { url } of [stranger, caller]) {
      expect(await codeOf(url, "CREATE SCHEMA mine", "CREATE EXTENSION dblink SCHEMA mine")).not.toBe("none");
      await rowsOf(url, "DROP SCHEMA IF EXISTS mine");
    }
  });

  it("a session that becomes another role has that role's rights, also when the gateway's connection is open", async () => {
    await using both = await login(database.url);
    await onServer(database.url, `GRANT ${stranger.role}, ${caller.role} TO ${both.role}`);
    const call = "SELECT nats_flush()";
    expect(await codeOf(both.url, `SET ROLE ${caller.role}`, call)).toBe("08001");
    expect(await codeOf(both.url, `SET ROLE ${stranger.role}`, call)).toBe(denied);
    expect(
      await codeOf(
        both.url,
        `SET ROLE ${caller.role}`,
        `DO $$ BEGIN PERFORM nats_flush(); EXCEPTION WHEN OTHERS THEN NULL; END $$`,
        `SET ROLE ${stranger.role}`,
        "SELECT hawser_dblink.dblink_get_connections()",
      ),
    ).toBe(denied);
  });

  it("nobody but the owner may use any function of dblink, even if its schema were opened", async () => {
    const open = await rowsOf(
      database.url,
      `SELECT p.oid::regprocedure AS name FROM pg_proc AS p
        WHERE pronamespace = 'hawser_dblink'::regnamespace AND has_function_privilege('public', p.oid, 'EXECUTE')`,
    );
    expect(open).toEqual([]);
    const granted = await rowsOf(
      database.url,
      `SELECT DISTINCT replace(p.oid::regprocedure::text, 'hawser_dblink.', '') AS name, a.grantee::regrole::text AS grantee
         FROM pg_proc AS p, aclexplode(p.proacl) AS a
        WHERE p.pronamespace = 'hawser_dblink'::regnamespace AND a.grantee <> p.proowner`,
    );
    expect(granted.map(({ name }) => (name as string).replaceAll(",", ", ")).sort()).toEqual(
      [...usedDblinkFunctions].sort(),
    );
    expect(new Set(granted.map(({ grantee }) => grantee))).toEqual(new Set(["hawser_owner"]));
  });

  describe("an object that a caller puts on the path or into pg_temp", () => {
    const shadows = [
      "CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (pg_catalog.length(VALUE) < 0)",
      "CREATE DOMAIN pg_temp.json AS pg_catalog.json CHECK (false)",
      "CREATE TEMP TABLE pg_foreign_server (srvname text)",
      "CREATE TEMP TABLE pg_user_mappings (umid oid)",
      "CREATE TEMP TABLE gateways (host text, port integer)",
      "CREATE TEMP TABLE gateway_secret (password text)",
    ];
    const attacked = [
      "SELECT public.nats_publish_text(pg_catalog.text 'a', pg_catalog.text 'b')",
      "SELECT public.nats_publish_binary(pg_catalog.text 'a', '\\x00'::pg_catalog.bytea)",
      "SELECT public.nats_publish_text_batch(pg_catalog.text 'a', ARRAY[pg_catalog.text 'b', NULL])",
      "SELECT public.nats_get_jsonb(pg_catalog.text 'a', pg_catalog.text 'b')",
      "SELECT * FROM public.nats_get_server_info()",
      "SELECT public.litmus_pgnats_reload_conf()",
    ];

    const unreached = { code: "08001", message: "the gateway cannot be reached, and nothing was sent" };

    it("does not come between a function and what it calls", async () => {
      await onServer(caller.url, "CREATE SCHEMA evil", traps("evil").join(";\n"));
      const [, trapped, ...onPath] = await errorsOf(caller.url, [
        "SET search_path = evil, pg_temp, pg_catalog",
        "SELECT 'a'::pg_catalog.text || 'b'::pg_catalog.text",
        ...attacked,
      ]);
      // The traps are real.
      expect(trapped).toMatchObject({ message: "hijacked" });
      const inTemp = await errorsOf(caller.url, [
        [...traps("pg_temp"), ...shadows, "SET search_path = pg_temp, pg_catalog"].join(";\n"),
        ...attacked,
      ]);
      expect(inTemp[0]).toBeUndefined();
      for (const [nth, call] of attacked.entries()) {
        expect(onPath[nth], call).toMatchObject(unreached);
        expect(inTemp[nth + 1], call).toMatchObject(unreached);
      }
      await onServer(caller.url, "DROP SCHEMA evil CASCADE");
    });

    it("does not come between the event triggers and their tables", async () => {
      await onServer(database.url, `GRANT USAGE ON FOREIGN DATA WRAPPER pgnats_fdw TO ${caller.role}`);
      const error = await refusal(
        caller.url,
        ...traps("pg_temp"),
        ...shadows,
        "SET search_path = pg_temp, pg_catalog",
        "CREATE SERVER theirs FOREIGN DATA WRAPPER pgnats_fdw OPTIONS (host 'nats.internal')",
      );
      expect(error).toBeUndefined();
      await rowsOf(database.url, "SELECT hawser.follow_nats_server()");
      expect(await rowsOf(database.url, "SELECT server_name, options FROM hawser_bridge_data.nats_server")).toEqual([
        { server_name: "theirs", options: { host: "nats.internal" } },
      ]);
      await rowsOf(caller.url, "DROP SERVER theirs");
    });
  });
});

describe("dblink that is installed already", () => {
  let database: TestDatabase;
  beforeEach(async () => {
    database = await testDatabase({ nats: false });
    return () => database.drop();
  });
  const failure = async (databaseUrl = database.url) => {
    const error = await install({ databaseUrl }).catch((thrown: unknown) => thrown);
    return error instanceof HawserError ? error : undefined;
  };
  const remedyOf = (message: string) => /Close it: (.*?)\. Roles that/.exec(message)![1]!;

  it("where everybody may use it is refused before anything is done", async () => {
    await using empty = await testDatabase({ migrated: false });
    await onServer(empty.url, "CREATE EXTENSION dblink");
    expect(await failure(empty.url)).toMatchObject({ code: "dblink_shared" });
    expect(await rowsOf(empty.url, "SELECT FROM pg_namespace WHERE nspname ~ '^hawser'")).toEqual([]);
  });

  it("where everybody may use it is refused with a remedy that works", async () => {
    await onServer(database.url, "CREATE EXTENSION dblink");
    const error = await failure();
    expect(error).toMatchObject({ code: "dblink_shared", message: expect.stringContaining('in the schema "public"') });
    await onServer(database.url, remedyOf(error!.message));
    expect(await install({ databaseUrl: database.url })).toMatchObject({
      nats: { dblinkSchema: "hawser_dblink", warnings: [] },
      missingPrivileges: [],
    });
    await deadGateway(database.url);
    expect(await codeOf(database.url, "SELECT nats_flush()")).toBe("08001");
  });
});
