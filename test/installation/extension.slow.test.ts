import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { errorTable } from "../../generated/ts/errors/errors.js";
import { introspect } from "../../scripts/verify/compare-schema.js";
import { takeInstallationLock } from "../../src/jobs-and-peers/migrations/index.js";
import {
  type InstallOptions,
  install,
  installExtension,
  publicFunctionCount,
  uninstall,
  usedDblinkFunctions,
} from "../../src/operating/installation/index.js";
import type { TestDatabase } from "../support/database.js";
import { type ExtensionServer, extensionServer } from "../support/extension-server.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { catalogOf, oidsOf } from "./support/catalog.js";
import { login, refusal } from "./support/logins.js";

const version = "1.2.3-test";
const create = "CREATE EXTENSION litmus_pgnats";
const closedDblink = ["CREATE SCHEMA closed", "CREATE EXTENSION dblink SCHEMA closed"];

let server: ExtensionServer;
let database: TestDatabase;

beforeAll(async () => {
  server = await extensionServer();
  await onServer(server.url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()");
  installExtension({ extension: server.extensionDirectory }, { version });
});
afterAll(() => server[Symbol.asyncDispose]());
beforeEach(async () => {
  database = await server.database();
});

/** Everything in the database, but the name of the extension. */
async function contentOf({ url }: TestDatabase): Promise<string[]> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    const schema = [...(await introspect(client))].map(([object, definition]) => `${object}: ${definition}`);
    const catalog = (await catalogOf(url)).filter((line) => !line.startsWith("extension litmus_pgnats"));
    return [...schema.sort(), ...catalog];
  } finally {
    await client.end();
  }
}

/** A database that `hawser init` has prepared. */
async function initialised(options: InstallOptions = {}, ...before: readonly string[]): Promise<TestDatabase> {
  const other = await server.database();
  await onServer(other.url, ...before);
  await install({ ...options, databaseUrl: other.url });
  return other;
}

/** Runs statements. Resolves with the notices of Postgres. */
async function noticesOf(url: string, ...statements: readonly string[]): Promise<string[]> {
  const client = new pg.Client(url);
  const notices: string[] = [];
  client.on("notice", ({ message }) => notices.push(message ?? ""));
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
  return notices;
}

const members = `
  SELECT pg_describe_object(classid, objid, objsubid) AS object FROM pg_depend
   WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
     AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'litmus_pgnats')`;

/** Privileges that a dump leaves out, because it takes them for the extension's. */
const grantedInside = `
  SELECT pg_describe_object(classoid, objoid, objsubid) AS object FROM pg_init_privs AS i
   WHERE privtype = 'e' AND NOT EXISTS (
     SELECT FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'dblink'
      WHERE d.objid = i.objoid AND d.deptype = 'e')`;

function withoutDblink(content: readonly string[]): string[] {
  return content.filter(
    (line) => !/^(extension dblink|wrapper dblink_fdw|(function|relation) hawser_dblink\.)/.test(line),
  );
}

const nothingMade = expect.arrayContaining([expect.stringContaining("created nothing")]);

describe("CREATE EXTENSION litmus_pgnats", () => {
  it("makes what `hawser init` makes, with the functions of dblink that are used instead of the extension", async () => {
    await onServer(database.url, create);
    const made = await contentOf(database);
    const real = await contentOf(await initialised());
    expect(made.length).toBeGreaterThan(250);
    expect(made.filter((line) => !real.includes(line))).toEqual([]);
    expect(withoutDblink(made)).toEqual(withoutDblink(real));
    const own = made.filter((line) => line.startsWith("function hawser_dblink."));
    expect(own).toHaveLength(usedDblinkFunctions.length);
    expect(own.filter((line) => !line.includes(": postgres hawser_owner=X/postgres postgres=X/postgres "))).toEqual([]);
  });

  it("leaves the settings of the transaction alone", async () => {
    const client = new pg.Client(database.url);
    await client.connect();
    try {
      const settings = "SELECT current_setting('search_path') AS path, current_setting('row_security') AS rows";
      await client.query("BEGIN");
      const before = (await client.query(settings)).rows;
      await client.query(create);
      expect((await client.query(settings)).rows).toEqual(before);
    } finally {
      await client.end();
    }
  });

  it("leaves a dblink alone that is installed already", async () => {
    await onServer(database.url, ...closedDblink);
    const before = await catalogOf(database.url);
    await onServer(database.url, create);
    const made = await contentOf(database);
    expect(made).toEqual(expect.arrayContaining(before));
    expect(made).toContainEqual(expect.stringMatching(/^function hawser_dblink\.dblink\(text,text\)/));
    expect(await rowsOf(database.url, grantedInside)).toEqual([]);
    expect((await install({ databaseUrl: database.url })).nats).toMatchObject({
      dblinkSchema: "hawser_dblink",
      warnings: [],
    });
    expect(await contentOf(database)).toEqual(made);
  });

  it("owns nothing: dumps have all of it, and no privileges are taken for granted in them", async () => {
    await onServer(database.url, create);
    expect(await rowsOf(database.url, members)).toEqual([]);
    expect(await rowsOf(database.url, grantedInside)).toEqual([]);
    expect(
      await rowsOf(
        database.url,
        "SELECT extversion, extnamespace::regnamespace::text AS schema FROM pg_extension WHERE extname = 'litmus_pgnats'",
      ),
    ).toEqual([{ extversion: version, schema: "public" }]);
  });

  it("leaves nothing to do to `hawser init`, which changes nothing", async () => {
    await onServer(database.url, create);
    const before = [await contentOf(database), await oidsOf(database.url)];
    await onServer(database.url, "GRANT EXECUTE ON FUNCTION hawser_dblink.dblink(text, text) TO PUBLIC");
    expect(await install({ databaseUrl: database.url })).toMatchObject({
      migrations: [],
      nats: { dblinkSchema: "hawser_dblink", functions: publicFunctionCount, eventTriggers: true, warnings: [] },
      missingPrivileges: [],
    });
    expect([await contentOf(database), await oidsOf(database.url)]).toEqual(before);
  });

  it("makes nothing after `hawser init`, and says so", async () => {
    const prepared = await initialised();
    const before = [await contentOf(prepared), (await oidsOf(prepared.url)).length + 1];
    expect(await noticesOf(prepared.url, create)).toEqual(nothingMade);
    expect([await contentOf(prepared), (await oidsOf(prepared.url)).length]).toEqual(before);
  });

  it("adds NATS where `hawser init` has prepared peers alone", async () => {
    const prepared = await initialised({ nats: false });
    await onServer(prepared.url, "SELECT hawser.set_nats_server('{\"port\": 4333}')");
    expect(await noticesOf(prepared.url, create)).toEqual([]);
    await onServer(database.url, create);
    expect(await contentOf(prepared)).toEqual(await contentOf(database));
    expect(await rowsOf(prepared.url, members)).toEqual([]);
    expect(await rowsOf(prepared.url, grantedInside)).toEqual([]);
    expect(await rowsOf(prepared.url, "SELECT options FROM hawser_bridge_data.nats_server")).toEqual([
      { options: { port: 4333 } },
    ]);
  });

  it("makes nothing in the schema of another version", async () => {
    const prepared = await initialised({ nats: false });
    await onServer(prepared.url, "UPDATE hawser_data.migrations SET checksum = 'of another version'");
    const before = await contentOf(prepared);
    expect(await noticesOf(prepared.url, create)).toEqual(nothingMade);
    expect(await contentOf(prepared)).toEqual(before);
  });

  it("makes nothing while a dump is restored, which makes schemas before extensions and the rest after", async () => {
    const notices = await noticesOf(
      database.url,
      "CREATE SCHEMA hawser",
      "CREATE SCHEMA hawser_dblink",
      "SET client_min_messages = warning",
      create,
    );
    expect(notices).toEqual(nothingMade);
    expect(await rowsOf(database.url, "SELECT FROM pg_proc WHERE oid >= 16384")).toEqual([]);
    expect(await rowsOf(database.url, "SELECT FROM pg_class WHERE oid >= 16384")).toEqual([]);
  });

  it("may be dropped and created again: functions stay, and tables with their rows", async () => {
    await onServer(database.url, create, `SELECT hawser.set_nats_server('{"host": "kept"}')`);
    const before = await contentOf(database);
    await onServer(database.url, "DROP EXTENSION litmus_pgnats");
    expect(await contentOf(database)).toEqual(before);
    expect(await noticesOf(database.url, create)).toEqual(nothingMade);
    expect(await contentOf(database)).toEqual(before);
    expect(await rowsOf(database.url, "SELECT options FROM hawser_bridge_data.nats_server")).toEqual([
      { options: { host: "kept" } },
    ]);
  });

  it("makes everything anew over what is left where the schema was dropped", async () => {
    await onServer(database.url, create);
    const before = await contentOf(database);
    await onServer(
      database.url,
      "DROP EXTENSION litmus_pgnats",
      "DROP SCHEMA hawser, hawser_data, hawser_peer_data, hawser_bridge_data CASCADE",
      create,
    );
    expect(await contentOf(database)).toEqual(before);
    expect(await rowsOf(database.url, members)).toEqual([]);
  });

  it.each([
    ["SCHEMA", 'CREATE EXTENSION litmus_pgnats SCHEMA "Other functions"'],
    ["the path", 'SET search_path = "Other functions", public; CREATE EXTENSION litmus_pgnats'],
  ])("takes the schema of the functions from %s", async (_, statement) => {
    await onServer(database.url, 'CREATE SCHEMA "Other functions"', statement);
    const other = await initialised({ nats: { schema: "Other functions" } }, 'CREATE SCHEMA "Other functions"');
    expect(withoutDblink(await contentOf(database))).toEqual(withoutDblink(await contentOf(other)));
    expect(
      await rowsOf(database.url, "SELECT has_schema_privilege('hawser_nats', 'Other functions', 'USAGE') AS may"),
    ).toEqual([{ may: true }]);
    expect(await rowsOf(database.url, grantedInside)).toEqual([]);
    expect(await install({ databaseUrl: database.url, nats: { schema: "Other functions" } })).toMatchObject({
      nats: { functions: publicFunctionCount },
      missingPrivileges: [],
    });
  });

  it("is undone by `hawser uninstall`, its functions of dblink included", async () => {
    await onServer(database.url, create);
    expect((await uninstall({ databaseUrl: database.url, dryRun: true })).sql).toContain(
      "DROP FUNCTION hawser_dblink.",
    );
    expect(await uninstall({ databaseUrl: database.url })).toMatchObject({ dblink: true, missingPrivileges: [] });
    expect(await rowsOf(database.url, "SELECT FROM pg_namespace WHERE nspname = 'hawser_dblink'")).toEqual([]);
    const peersAlone = await initialised({ nats: false });
    const rest = (await contentOf(database)).filter((line) => !line.startsWith("schema "));
    expect(rest).toEqual((await contentOf(peersAlone)).filter((line) => !line.startsWith("schema ")));
    // And back.
    await onServer(database.url, "DROP EXTENSION litmus_pgnats");
    expect(await noticesOf(database.url, create)).toEqual([]);
    expect((await install({ databaseUrl: database.url })).nats).toMatchObject({ functions: publicFunctionCount });
  });

  it("does not wait for a `hawser init` that has work to do, and makes nothing", async () => {
    const older = await initialised();
    await onServer(older.url, "UPDATE hawser_data.migrations SET functions = 'older'");
    const installer = new pg.Client(older.url);
    await installer.connect();
    try {
      await takeInstallationLock(installer, () => undefined);
      expect(await noticesOf(older.url, create)).toEqual(nothingMade);
    } finally {
      await installer.end();
    }
  });

  it("takes turns with `hawser init`", async () => {
    const outcomes = await Promise.all([
      ...Array.from({ length: 3 }, () =>
        install({ databaseUrl: database.url }).then(({ missingPrivileges }) => missingPrivileges),
      ),
      onServer(database.url, create).then(() => []),
    ]);
    expect(outcomes).toEqual([[], [], [], []]);
    expect(await rowsOf(database.url, members)).toEqual([]);
  });

  it("declares functions of dblink as dblink does", async () => {
    await onServer(database.url, create, "CREATE EXTENSION dblink");
    const declared = (schema: string) =>
      rowsOf(
        database.url,
        `SELECT proname, proargtypes::text, prorettype, proretset, proisstrict, provolatile, proparallel, prosecdef, procost, prorows,
                probin, prosrc, prolang, proconfig, proargmodes, proargnames FROM pg_proc WHERE pronamespace = '${schema}'::regnamespace ORDER BY 1, 2`,
      );
    const ours = await declared("hawser_dblink");
    expect(ours).toHaveLength(usedDblinkFunctions.length);
    expect(await declared("public")).toEqual(expect.arrayContaining(ours));
    // Now every role may call the other dblink, and reach the same connections by it.
    await expect(install({ databaseUrl: database.url })).rejects.toMatchObject({
      code: "dblink_shared",
      message: expect.stringContaining("ALTER EXTENSION dblink SET SCHEMA dblink"),
    });
    await onServer(
      database.url,
      "CREATE SCHEMA dblink",
      "REVOKE ALL ON SCHEMA dblink FROM PUBLIC",
      "ALTER EXTENSION dblink SET SCHEMA dblink",
    );
    expect((await install({ databaseUrl: database.url })).nats).toMatchObject({ dblinkSchema: "hawser_dblink" });
  });
});

it("default privileges do not count within CREATE EXTENSION litmus_pgnats", async () => {
  const grants = ["TABLES", "SEQUENCES", "FUNCTIONS", "SCHEMAS"].map(
    (kind) => `ALTER DEFAULT PRIVILEGES GRANT ALL ON ${kind} TO reader WITH GRANT OPTION`,
  );
  const [given, plain] = [await server.database(), await server.database()];
  await onServer(given.url, "CREATE ROLE reader", ...grants);
  for (const { url } of [given, plain]) await onServer(url, "CREATE EXTENSION litmus_pgnats");
  expect(await catalogOf(given.url)).toEqual(await catalogOf(plain.url));
  const privileges = "SELECT FROM pg_init_privs AS i, aclexplode(i.initprivs) AS a WHERE a.grantee = 'reader'::regrole";
  expect(await rowsOf(given.url, privileges)).toEqual([]);
  expect(await install({ databaseUrl: given.url })).toMatchObject({ missingPrivileges: [], warnings: [] });
});

describe("CREATE EXTENSION litmus_pgnats refuses, and leaves nothing behind:", () => {
  /** Resolves with the error of the statements, after a check that they have changed nothing. */
  async function refused(...statements: readonly string[]): Promise<pg.DatabaseError> {
    const before = await catalogOf(database.url);
    const error = await refusal(database.url, ...statements);
    expect(await catalogOf(database.url)).toEqual(before);
    if (error === undefined) throw new Error("it did not");
    // Where it was, in a few lines: not the text of the script.
    expect(error.where).toContain("hawser_install()");
    expect(error.where!.length).toBeLessThan(500);
    return error;
  }

  it("a role that is no superuser", async () => {
    await using role = await login(database.url);
    await onServer(database.url, `GRANT CREATE ON DATABASE ${database.name} TO ${role.role}`);
    expect(await refusal(role.url, create)).toMatchObject({
      code: "42501",
      message: 'permission denied to create extension "litmus_pgnats"',
    });
  });

  it("dblink that every role may call, with the remedy, which works", async () => {
    await onServer(database.url, "CREATE EXTENSION dblink");
    const error = await refused(create);
    expect(error.code).toBe(errorTable.dblink_shared.sqlstate);
    await onServer(database.url, error.hint!, create);
    expect((await install({ databaseUrl: database.url })).nats).toMatchObject({
      dblinkSchema: "hawser_dblink",
      warnings: [],
    });
  });

  it("functions of others in the place of its own", async () => {
    await onServer(database.url, "CREATE FUNCTION nats_flush() RETURNS void LANGUAGE sql AS ''");
    expect(await refused(create)).toMatchObject({
      code: errorTable.name_occupied.sqlstate,
      message: expect.stringContaining('public.nats_flush() of "postgres"'),
    });
    await onServer(database.url, "CREATE SCHEMA other", `${create} SCHEMA other`);
  });

  it("the native extension under its other name", async () => {
    // Its library is not to be had here: an extension in C under its name is what can be seen of it.
    await rowsOf(
      database.url,
      "SET allow_system_table_mods = on; CREATE EXTENSION pg_trgm; UPDATE pg_extension SET extname = 'pgnats' WHERE extname = 'pg_trgm'",
    );
    expect(await refused(create)).toMatchObject({
      code: errorTable.native_extension.sqlstate,
      message: expect.stringContaining("(pgnats)"),
    });
  });

  it("a database in another encoding", async () => {
    database = await server.database({ encoding: "LATIN1" });
    expect(await refused(create)).toMatchObject({
      code: errorTable.not_supported.sqlstate,
      message: expect.stringContaining("LATIN1"),
    });
  });

  it("wrappers and event triggers of others", async () => {
    await onServer(database.url, "CREATE FOREIGN DATA WRAPPER pgnats_fdw VALIDATOR postgresql_fdw_validator");
    expect((await refused(create)).message).toContain("pgnats_fdw");
    await onServer(
      database.url,
      "DROP FOREIGN DATA WRAPPER pgnats_fdw",
      "CREATE FOREIGN DATA WRAPPER pgnats_fdw",
      "CREATE FUNCTION mine() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
      "CREATE EVENT TRIGGER hawser_nats_server_drop ON sql_drop EXECUTE FUNCTION mine()",
    );
    expect((await refused(create)).message).toContain("hawser_nats_server_drop");
    // One that somebody made beforehand, with no validator, gets ours.
    await onServer(database.url, "DROP EVENT TRIGGER hawser_nats_server_drop", create);
    expect((await install({ databaseUrl: database.url })).nats).toMatchObject({
      wrappers: ["litmus_pgnats_fdw", "pgnats_fdw"],
    });
  });

  it("a place for dblink that belongs to somebody else", async () => {
    await using role = await login(database.url);
    await onServer(database.url, `CREATE SCHEMA hawser_dblink AUTHORIZATION ${role.role}`);
    expect(await refused(create)).toMatchObject({
      code: errorTable.name_occupied.sqlstate,
      hint: "DROP SCHEMA hawser_dblink",
    });
  });

  it("a place for what superusers run that belongs to somebody else", async () => {
    await using role = await login(database.url);
    await onServer(database.url, `CREATE SCHEMA hawser_fdw AUTHORIZATION ${role.role}`);
    expect(await refused(create)).toMatchObject({
      code: errorTable.name_occupied.sqlstate,
      hint: "DROP SCHEMA hawser_fdw CASCADE",
    });
  });

  it("a schema hawser of somebody else, whose code it does not run", async () => {
    await using role = await login(database.url);
    await onServer(database.url, `GRANT CREATE ON DATABASE ${database.name} TO ${role.role}`);
    await onServer(
      role.url,
      "CREATE SCHEMA hawser",
      "CREATE SCHEMA hawser_data",
      `CREATE FUNCTION hawser.f() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN
         IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN ALTER ROLE ${role.role} SUPERUSER; END IF;
         RETURN 0; END $$`,
      "CREATE VIEW hawser_data.migrations AS SELECT hawser.f() AS id, ''::text AS name, ''::text AS checksum",
    );
    expect(await refused(create)).toMatchObject({
      code: errorTable.name_occupied.sqlstate,
      message: expect.stringContaining(`the schema hawser belongs to ${role.role}`),
      hint: expect.stringContaining(`GRANT hawser_owner TO "${role.role}"`),
    });
    expect(await rowsOf(database.url, `SELECT rolsuper FROM pg_roles WHERE rolname = '${role.role}'`)).toEqual([
      { rolsuper: false },
    ]);
  });

  it("a schema whose name cannot stand in a function, or that is Hawser's", async () => {
    for (const schema of ["hawser_run", "back\\slash"]) {
      await onServer(database.url, `CREATE SCHEMA "${schema}"`);
      expect((await refused(`${create} SCHEMA "${schema}"`)).code).toBe(errorTable.invalid_argument.sqlstate);
    }
  });
});
