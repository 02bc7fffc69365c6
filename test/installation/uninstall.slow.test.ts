/**
 * Taking NATS from SQL out of a database again.
 */
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { install, publicFunctionCount, uninstall } from "../../src/operating/installation/index.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { limitedInstaller } from "../support/limited-installer.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { catalogOf, oidsOf } from "./support/catalog.js";
import { installedDatabase } from "./support/installed.js";

const databases: TestDatabase[] = [];
let database: TestDatabase;

beforeEach(async () => {
  database = await testDatabase({ migrated: false });
  databases.push(database);
});
afterAll(async () => {
  for (const each of databases) await each.drop();
});

async function installed(): Promise<TestDatabase> {
  const made = await installedDatabase();
  databases.push(made);
  return made;
}

const nothing = { functions: 0, wrappers: [], eventTriggers: [], dblink: false, schemas: [], missingPrivileges: [] };

describe("removing NATS from SQL", () => {
  it("leaves what an installation for peers alone has, and an installation brings all of it back", async () => {
    database = await installed();
    const before = await catalogOf(database.url);
    expect(await uninstall({ databaseUrl: database.url })).toMatchObject({
      functions: publicFunctionCount,
      wrappers: ["litmus_pgnats_fdw", "pgnats_fdw"],
      eventTriggers: ["hawser_nats_server_drop", "hawser_nats_server_follow"],
      dblink: true,
      schemas: ["hawser_run", "pgnats"],
      login: expect.stringMatching(/^hawser_executor_[0-9a-f]{12}$/),
      missingPrivileges: [],
      rest: "DROP SCHEMA hawser, hawser_data, hawser_peer_data, hawser_bridge_data CASCADE",
    });
    await using peersAlone = await testDatabase({ migrated: false });
    await install({ databaseUrl: peersAlone.url, nats: false });
    expect(await catalogOf(database.url)).toEqual(await catalogOf(peersAlone.url));
    expect(await uninstall({ databaseUrl: database.url })).toMatchObject(nothing);

    await install({ databaseUrl: database.url });
    expect(await catalogOf(database.url)).toEqual(before);
  });

  it("finds the functions in whatever schema they are, and also after the schema hawser is gone", async () => {
    await onServer(database.url, "CREATE SCHEMA bus");
    await install({ databaseUrl: database.url, nats: { schema: "bus" } });
    await onServer(database.url, "DROP SCHEMA hawser, hawser_data, hawser_peer_data, hawser_bridge_data CASCADE");
    expect(await uninstall({ databaseUrl: database.url })).toMatchObject({
      functions: publicFunctionCount,
      dblink: true,
    });
    expect(await oidsOf(database.url)).toMatchObject([{ name: "plpgsql" }]);
  });

  it("prints SQL that does the same, and changes nothing itself", async () => {
    database = await installed();
    const before = await catalogOf(database.url);
    const { sql } = await uninstall({ databaseUrl: database.url, dryRun: true });
    expect(await catalogOf(database.url)).toEqual(before);
    await onServer(database.url, sql!);
    expect(await uninstall({ databaseUrl: database.url })).toMatchObject(nothing);
  });

  it("removes nothing while a server or a view uses it, and names that", async () => {
    database = await installed();
    await onServer(
      database.url,
      'CREATE SERVER "my nats" FOREIGN DATA WRAPPER pgnats_fdw',
      "CREATE VIEW v AS SELECT nats_get_text('a', 'b')",
    );
    const before = await catalogOf(database.url);
    await expect(uninstall({ databaseUrl: database.url })).rejects.toMatchObject({
      code: "name_occupied",
      message: expect.stringContaining('DROP SERVER "my nats" CASCADE'),
    });
    await onServer(database.url, 'DROP SERVER "my nats" CASCADE');
    await expect(uninstall({ databaseUrl: database.url })).rejects.toMatchObject({
      code: "name_occupied",
      message: expect.stringContaining("view public.v depends on function public.nats_get_text("),
    });
    expect(await catalogOf(database.url)).toEqual(before);
    await onServer(database.url, "DROP VIEW v");
    expect(await uninstall({ databaseUrl: database.url })).toMatchObject({ functions: publicFunctionCount });
  });

  it("leaves dblink where it was there before, or where something else has come to use it", async () => {
    await onServer(database.url, "CREATE SCHEMA private", "CREATE EXTENSION dblink SCHEMA private");
    await install({ databaseUrl: database.url });
    expect(await uninstall({ databaseUrl: database.url })).toMatchObject({ dblink: false, missingPrivileges: [] });
    expect(await rowsOf(database.url, "SELECT FROM pg_extension WHERE extname = 'dblink'")).toHaveLength(1);

    const other = await installed();
    await onServer(other.url, "CREATE SERVER far FOREIGN DATA WRAPPER dblink_fdw");
    expect(await uninstall({ databaseUrl: other.url })).toMatchObject({
      functions: publicFunctionCount,
      dblink: false,
      missingPrivileges: [{ what: expect.stringContaining("dblink is still there: something else uses it") }],
    });
  });

  it("removes nothing while NATS reaches a function, and names that; then what its wrapper has left goes along", async () => {
    database = await installed();
    await onServer(
      database.url,
      "CREATE FUNCTION f(payload bytea) RETURNS bytea LANGUAGE sql AS 'SELECT payload'",
      "SELECT nats_subscribe('orders.*', 'f'), litmus_pgnats_register_responder('rpc', 'f')",
    );
    const before = await catalogOf(database.url);
    await expect(uninstall({ databaseUrl: database.url })).rejects.toMatchObject({
      code: "name_occupied",
      message: expect.stringContaining('"public.f answers rpc", "public.f on orders.*"'),
    });
    expect(await catalogOf(database.url)).toEqual(before);
    await onServer(database.url, "SELECT nats_unsubscribe('orders.*', 'f'), litmus_pgnats_unregister_responder('rpc')");
    expect(await uninstall({ databaseUrl: database.url })).toMatchObject({ schemas: ["hawser_run", "pgnats"] });
    expect(await rowsOf(database.url, "SELECT FROM pg_roles WHERE rolname ~ '^hawser_executor_'")).not.toEqual([]);
  });

  it("leaves functions, wrappers and event triggers of others, and what peers have stored", async () => {
    database = await testDatabase({ nats: false });
    databases.push(database);
    await onServer(
      database.url,
      "CREATE FUNCTION nats_flush() RETURNS void LANGUAGE sql AS ''",
      "CREATE FOREIGN DATA WRAPPER pgnats_fdw",
    );
    const before = await catalogOf(database.url);
    expect(await uninstall({ databaseUrl: database.url })).toMatchObject(nothing);
    expect(await catalogOf(database.url)).toEqual(before);
  });

  it("by a role that may not remove everything removes what it may, and names the rest", async () => {
    await using limited = await limitedInstaller();
    await install({ databaseUrl: limited.installerUrl });
    await onServer(limited.superuserUrl, `GRANT hawser_owner TO ${limited.role}`);
    await install({ databaseUrl: limited.superuserUrl });
    await onServer(limited.superuserUrl, `REVOKE hawser_owner FROM ${limited.role}`);
    const { functions, missingPrivileges } = await uninstall({ databaseUrl: limited.installerUrl });
    expect(functions).toBe(0);
    expect(missingPrivileges.map(({ what }) => what)).toEqual([
      expect.stringMatching(
        /^\d+ SQL functions of "hawser_owner" are still there, and "\w+" may not drop them \(must be owner of function /,
      ),
      expect.stringContaining("the event trigger hawser_nats_server_drop is still there"),
      expect.stringContaining("the event trigger hawser_nats_server_follow is still there"),
      expect.stringContaining("the foreign data wrapper litmus_pgnats_fdw is still there"),
      expect.stringContaining("the foreign data wrapper pgnats_fdw is still there"),
      expect.stringContaining("the schema hawser_fdw is still there"),
      expect.stringContaining("the schema hawser_run is still there"),
      expect.stringContaining("the schema pgnats, or something in it is still there"),
    ]);
    expect(await uninstall({ databaseUrl: limited.superuserUrl })).toMatchObject({
      functions: publicFunctionCount,
      dblink: false,
      missingPrivileges: [],
    });
  });
});
