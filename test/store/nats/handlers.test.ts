/**
 * Objects that `hawser init` makes for the functions that NATS reaches: schemas, view, login.
 */
import { createHash, createHmac, pbkdf2Sync } from "node:crypto";
import pg from "pg";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { install } from "../../../src/installation/index.js";
import { type TestDatabase, type TestDatabaseOptions, testDatabase } from "../../support/database.js";
import { limitedInstaller } from "../../support/limited-installer.js";
import { onServer, rowsOf } from "../../support/on-server.js";
import { complete, executorOf, loginSql } from "./support/executor.js";
import { login } from "./support/logins.js";

const databases: TestDatabase[] = [];
let database: TestDatabase;

/** By default a copy of what an installation makes. */
async function make(options: TestDatabaseOptions = {}): Promise<void> {
  database = await testDatabase(options);
  databases.push(database);
}

beforeEach(() => make());

afterAll(async () => {
  for (const each of databases) await each.drop();
});

describe("the login that calls functions for NATS", () => {
  it("is made, and made again where a dump was restored in another cluster", async () => {
    await make({ migrated: false });
    await install({ databaseUrl: database.url });
    const name = await executorOf(database.url);
    expect(await rowsOf(database.url, loginSql(name))).toEqual([complete]);
    await onServer(database.url, `REVOKE CONNECT ON DATABASE ${database.name} FROM PUBLIC`);
    await onServer(database.url, `DROP OWNED BY ${name}`, `DROP ROLE ${name}`);
    expect(await install({ databaseUrl: database.url })).toMatchObject({ missingPrivileges: [] });
    expect(await executorOf(database.url)).toBe(name);
    expect(await rowsOf(database.url, loginSql(name))).toEqual([complete]);
    expect(
      await rowsOf(database.url, `SELECT has_database_privilege('${name}', current_database(), 'CONNECT') AS connects`),
    ).toEqual([{ connects: true }]);
  });

  it("shows its password in no SQL of a dry run, and in no report", async () => {
    const [row] = await rowsOf(database.url, "SELECT password FROM hawser_data.executor_login");
    await onServer(database.url, `DROP ROLE ${await executorOf(database.url)}`);
    const dry = await install({ databaseUrl: database.url, dryRun: true });
    expect(dry.sql).toContain("CREATE ROLE %I LOGIN");
    const done = await install({ databaseUrl: database.url });
    for (const report of [dry, done]) expect(JSON.stringify(report)).not.toContain(row!["password"]);
  });

  it.each([
    ["as it was made", undefined],
    ["longer than a block of the hash", "x".repeat(200)],
  ])("is given its password as a verifier, so that no statement holds it (%s)", async (_, other) => {
    await make({ migrated: false });
    await install({ databaseUrl: database.url });
    if (other !== undefined)
      await onServer(database.url, `UPDATE hawser_data.executor_login SET password = '${other}'`);
    await install({ databaseUrl: database.url });
    const [row] = await rowsOf(
      database.url,
      "SELECT l.password, a.rolpassword AS verifier FROM hawser_data.executor_login AS l JOIN pg_authid AS a ON a.rolname = l.user_name",
    );
    const { password, verifier } = row as { password: string; verifier: string };
    const [, iterations, salt, storedKey, serverKey] = /^SCRAM-SHA-256\$(\d+):(.+)\$(.+):(.+)$/.exec(verifier)!;
    const salted = pbkdf2Sync(password, Buffer.from(salt!, "base64"), Number(iterations), 32, "sha256");
    const keyed = (words: string) => createHmac("sha256", salted).update(words).digest();
    expect(storedKey).toBe(createHash("sha256").update(keyed("Client Key")).digest("base64"));
    expect(serverKey).toBe(keyed("Server Key").toString("base64"));
  });

  it("is a missing privilege where the role may make no roles, with its remedy, beforehand and after", async () => {
    await using limited = await limitedInstaller();
    const foreseen = await install({ databaseUrl: limited.installerUrl, dryRun: true });
    const done = await install({ databaseUrl: limited.installerUrl });
    for (const { missingPrivileges } of [foreseen, done]) {
      expect(missingPrivileges).toContainEqual({
        what: expect.stringMatching(/^the login .*calls functions for NATS,? is missing, and "\w+" may not make/),
        meaning: "functions can be subscribed, but `hawser serve` cannot call them",
        remedy: expect.stringContaining("as a role that may make roles: run `hawser init`; or name another login"),
      });
    }
  });

  it("is warned of when it, or its role, is in another one", async () => {
    const name = await executorOf(database.url);
    await using other = await login(database.url);
    await onServer(database.url, `GRANT ${other.role} TO ${name}`);
    const { roleWarnings } = await install({ databaseUrl: database.url });
    expect(roleWarnings).toContainEqual(
      expect.stringMatching(new RegExp(`act as "${name}", .*REVOKE "${other.role}" FROM "${name}"$`)),
    );
    await onServer(database.url, `REVOKE ${other.role} FROM ${name}`);
  });
});

describe("an object in the place of ours", () => {
  beforeEach(() => make({ migrated: false }));

  it.each(["hawser_run", "pgnats"])("keeps init from touching the schema %s of somebody else", async (schema) => {
    await using mallory = await login(database.url);
    await onServer(database.url, `CREATE SCHEMA ${schema} AUTHORIZATION ${mallory.role}`);
    for (const dryRun of [true, false]) {
      await expect(install({ databaseUrl: database.url, dryRun })).rejects.toMatchObject({
        code: "name_occupied",
        message: expect.stringContaining(`SCHEMA ${schema} of "${mallory.role}"`),
      });
    }
    expect(await rowsOf(database.url, "SELECT FROM pg_namespace WHERE nspname = 'hawser'")).toEqual([]);
    expect((await install({ databaseUrl: database.url, nats: false })).nats).toBeNull();
  });

  it("keeps init from replacing a table pgnats.subscriptions, or a view of somebody else", async () => {
    await onServer(
      database.url,
      "CREATE SCHEMA pgnats",
      "CREATE TABLE pgnats.subscriptions (subject text, callback text)",
    );
    await expect(install({ databaseUrl: database.url })).rejects.toMatchObject({
      code: "name_occupied",
      message: expect.stringContaining("TABLE pgnats.subscriptions"),
    });
    await using mallory = await login(database.url);
    await onServer(
      database.url,
      "DROP TABLE pgnats.subscriptions",
      "CREATE VIEW pgnats.subscriptions AS SELECT 1 AS one",
      `ALTER VIEW pgnats.subscriptions OWNER TO ${mallory.role}`,
    );
    await expect(install({ databaseUrl: database.url })).rejects.toMatchObject({ code: "name_occupied" });
  });

  it("named pgnats and empty is taken, where a superuser made it", async () => {
    await onServer(database.url, "CREATE SCHEMA pgnats");
    expect(await install({ databaseUrl: database.url })).toMatchObject({ missingPrivileges: [] });
    expect(await rowsOf(database.url, "SELECT * FROM pgnats.subscriptions")).toEqual([]);
  });
});

it("the view lets no function of a reader see what it leaves out", async () => {
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

it("gives nobody else anything of schemas and view, and warns of what was granted by hand", async () => {
  await using reader = await login(database.url);
  await onServer(
    database.url,
    `GRANT USAGE, CREATE ON SCHEMA hawser_run TO ${reader.role}`,
    `GRANT SELECT ON pgnats.subscriptions TO ${reader.role}`,
    `GRANT SELECT ON hawser_data.nats_handlers, hawser_data.executor_login TO ${reader.role}`,
  );
  const { warnings } = await install({ databaseUrl: database.url });
  expect(warnings[0]).toContain(
    "REVOKE SELECT ON TABLE hawser_data.executor_login, hawser_data.nats_handlers, pgnats.subscriptions FROM",
  );
  expect(warnings.join("\n")).toContain("ON SCHEMA hawser_run FROM");
});
