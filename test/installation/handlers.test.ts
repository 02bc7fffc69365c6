/**
 * Objects that `hawser init` makes for the functions that NATS reaches: schemas, view, login.
 */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { install } from "../../src/operating/installation/index.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { limitedInstaller } from "../support/limited-installer.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { complete, executorOf, loginSql } from "./support/executor.js";
import { login } from "./support/logins.js";
import { loginIsMissing } from "./support/missing-privileges.js";
import { expectVerifier } from "./support/verifier.js";

let database: TestDatabase;
beforeAll(async () => {
  database = await testDatabase();
});
afterAll(() => database?.drop());

describe("the login that calls functions for NATS", () => {
  it("is made where it is missing, as after a dump was restored in another cluster, and its password is shown nowhere", async () => {
    const name = await executorOf(database.url);
    await onServer(
      database.url,
      `REVOKE CONNECT ON DATABASE ${database.name} FROM PUBLIC`,
      `DROP OWNED BY ${name}`,
      `DROP ROLE ${name}`,
    );
    const dry = await install({ databaseUrl: database.url, dryRun: true });
    expect(dry.sql).toContain("CREATE ROLE %I LOGIN");
    const done = await install({ databaseUrl: database.url });
    expect(done).toMatchObject({ missingPrivileges: [] });
    const [row] = await rowsOf(
      database.url,
      `SELECT user_name, password, has_database_privilege(user_name, current_database(), 'CONNECT') AS connects FROM hawser_bridge_data.executor_login`,
    );
    expect(row).toMatchObject({ user_name: name, connects: true });
    for (const report of [dry, done]) expect(JSON.stringify(report)).not.toContain(row!["password"]);
    expect(await rowsOf(database.url, loginSql(name))).toEqual([complete]);
    await expectVerifier(database.url);
    await onServer(database.url, `GRANT CONNECT ON DATABASE ${database.name} TO PUBLIC`);
  });

  it("is a missing privilege where the role may make no roles, with its remedy", async () => {
    await using limited = await limitedInstaller();
    const { missingPrivileges } = await install({ databaseUrl: limited.installerUrl, dryRun: true });
    expect(missingPrivileges).toContainEqual(loginIsMissing);
  });

  it("is warned of when it, or its role, is in another one", async () => {
    const name = await executorOf(database.url);
    await using other = await login(database.url);
    await onServer(database.url, `GRANT ${other.role} TO ${name}`);
    const { roleWarnings } = await install({ databaseUrl: database.url, dryRun: true });
    expect(roleWarnings).toContainEqual(
      expect.stringMatching(new RegExp(`act as "${name}", .*REVOKE "${other.role}" FROM "${name}"$`)),
    );
    await onServer(database.url, `REVOKE ${other.role} FROM ${name}`);
  });
});

describe("an object in the place of ours", () => {
  let empty: TestDatabase;
  beforeAll(async () => {
    empty = await testDatabase({ migrated: false });
  });
  afterAll(() => empty?.drop());

  const refused = (words: string) => ({ code: "name_occupied", message: expect.stringContaining(words) });

  it.each(["hawser_run", "pgnats"])("keeps init from touching the schema %s of somebody else", async (schema) => {
    await using mallory = await login(empty.url);
    await onServer(empty.url, `CREATE SCHEMA ${schema} AUTHORIZATION ${mallory.role}`);
    for (const dryRun of [true, false]) {
      await expect(install({ databaseUrl: empty.url, dryRun })).rejects.toMatchObject(
        refused(`SCHEMA ${schema} of "${mallory.role}"`),
      );
    }
    expect(await rowsOf(empty.url, "SELECT FROM pg_namespace WHERE nspname = 'hawser'")).toEqual([]);
    expect((await install({ databaseUrl: empty.url, nats: false, dryRun: true })).nats).toBeNull();
  });

  it("keeps init from replacing a table pgnats.subscriptions, or a view of somebody else", async () => {
    await onServer(
      empty.url,
      "CREATE SCHEMA pgnats",
      "CREATE TABLE pgnats.subscriptions (subject text, callback text)",
    );
    await expect(install({ databaseUrl: empty.url })).rejects.toMatchObject(refused("TABLE pgnats.subscriptions"));
    await using mallory = await login(empty.url);
    await onServer(
      empty.url,
      "DROP TABLE pgnats.subscriptions",
      "CREATE VIEW pgnats.subscriptions AS SELECT 1 AS one",
      `ALTER VIEW pgnats.subscriptions OWNER TO ${mallory.role}`,
    );
    await expect(install({ databaseUrl: empty.url })).rejects.toMatchObject(refused("VIEW pgnats.subscriptions"));
    await onServer(empty.url, "DROP SCHEMA pgnats CASCADE");
  });
});

describe("the view of subscriptions", () => {
  it("lets no function of a reader see what it leaves out", async () => {
    await using reader = await login(database.url);
    await onServer(
      database.url,
      `GRANT hawser_nats TO ${reader.role}`,
      `CREATE SCHEMA leak AUTHORIZATION ${reader.role}`,
      "CREATE FUNCTION public.answer(payload bytea) RETURNS bytea LANGUAGE sql AS 'SELECT payload'",
      "SELECT litmus_pgnats_register_responder('hidden.subject', 'public.answer')",
    );
    const seen: string[] = [];
    const client = new pg.Client({ connectionString: reader.url });
    client.on("notice", ({ message }) => seen.push(message!));
    await client.connect();
    await client.query(`
      CREATE FUNCTION leak.tell(subject text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$
        BEGIN RAISE NOTICE '%', subject; RETURN true; END $$`);
    await client.query("SELECT * FROM pgnats.subscriptions WHERE leak.tell(subject)");
    await client.end();
    expect(seen).toEqual([]);
  });
});

describe("a grant by hand of the view of subscriptions, a schema or a table", () => {
  it("is warned of, with the statement that takes it away", async () => {
    await using reader = await login(database.url);
    await onServer(
      database.url,
      `GRANT USAGE, CREATE ON SCHEMA hawser_run TO ${reader.role}`,
      `GRANT SELECT ON pgnats.subscriptions TO ${reader.role}`,
      `GRANT SELECT ON hawser_bridge_data.nats_handlers, hawser_bridge_data.executor_login TO ${reader.role}`,
    );
    const { warnings } = await install({ databaseUrl: database.url, dryRun: true });
    expect(warnings[0]).toContain(
      "REVOKE SELECT ON TABLE hawser_bridge_data.executor_login, hawser_bridge_data.nats_handlers, pgnats.subscriptions FROM",
    );
    expect(warnings.join("\n")).toContain("ON SCHEMA hawser_run FROM");
  });
});
