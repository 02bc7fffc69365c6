/**
 * What keeps `CREATE EXTENSION litmus_pgnats` from being carried out: the same as with `hawser init`.
 */
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { errorTable } from "../../src/errors/index.js";
import { installExtension } from "../../src/store/extension/index.js";
import { install } from "../../src/store/index.js";
import type { TestDatabase } from "../support/database.js";
import { type ExtensionServer, extensionServer } from "../support/extension-server.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { catalogOf } from "./nats/support/catalog.js";
import { login, refusal } from "./nats/support/logins.js";

const create = "CREATE EXTENSION litmus_pgnats";

let server: ExtensionServer;
let database: TestDatabase;

beforeAll(async () => {
  server = await extensionServer();
  installExtension({ extension: server.extensionDirectory }, { version: "1.2.3-test" });
});
afterAll(() => server[Symbol.asyncDispose]());
beforeEach(async () => {
  database = await server.database();
});

describe("CREATE EXTENSION litmus_pgnats refuses, and leaves nothing behind:", () => {
  /** What it says, and that nothing has changed. */
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
      message: expect.stringContaining("public.nats_flush() of postgres"),
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
      `CREATE FUNCTION hawser.f() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN
         IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN ALTER ROLE ${role.role} SUPERUSER; END IF;
         RETURN 0; END $$`,
      "CREATE VIEW hawser.migrations AS SELECT hawser.f() AS id, ''::text AS name, ''::text AS checksum",
    );
    expect(await refused(create)).toMatchObject({
      code: errorTable.name_occupied.sqlstate,
      message: expect.stringContaining(`the schema hawser belongs to ${role.role}`),
      hint: expect.stringContaining(`GRANT hawser_owner TO ${role.role}`),
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
