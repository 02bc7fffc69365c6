/**
 * The objects of the schema `hawser` that were dropped, renamed or replaced since it was made.
 */
import pg from "pg";
import { describe, expect, it } from "vitest";
import { declaredSchema, foundSchema } from "../../../src/installation/declared-schema.js";
import { install } from "../../../src/installation/index.js";
import { queryRunner } from "../../../src/installation/objects.js";
import { migrate } from "../../../src/store/index.js";
import { testDatabase } from "../../support/database.js";
import { onServer, rowsOf } from "../../support/on-server.js";

async function found(databaseUrl: string) {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    return await foundSchema(queryRunner(client));
  } finally {
    await client.end();
  }
}

/** A list without an order, as the other list has it. */
function sorted(items: readonly object[]): string[] {
  return items.map((item) => JSON.stringify(Object.entries({ ...item, statement: "", isValid: true }).sort())).sort();
}

describe("the objects of a new database", () => {
  it("are those that the generated SQL declares, each of them", async () => {
    await using database = await testDatabase({ nats: false });
    const there = await found(database.url);
    const declared = declaredSchema();
    for (const kind of ["relations", "parts", "functions"] as const) {
      expect(declared[kind].length, kind).toBeGreaterThan(30);
      expect(sorted(there[kind]), kind).toEqual(sorted(declared[kind]));
    }
  });
});

const evil = "CREATE OR REPLACE FUNCTION hawser.id_of_topic(p_topic text, OUT id integer) LANGUAGE sql AS 'SELECT 1'";

describe("hawser init", () => {
  it("makes functions, views and triggers anew, with their owner and their privileges and no others", async () => {
    await using database = await testDatabase({ nats: false });
    const { url } = database;
    const aclSql = `
      SELECT p.oid::regprocedure::text AS name, pg_get_userbyid(p.proowner) AS owner, p.proacl::text AS acl FROM pg_proc AS p
       WHERE p.pronamespace = 'hawser'::regnamespace
      UNION ALL
      SELECT c.oid::regclass::text, pg_get_userbyid(c.relowner), c.relacl::text FROM pg_class AS c
       WHERE c.relnamespace IN ('hawser'::regnamespace, 'hawser_data'::regnamespace) AND c.relkind = 'v' ORDER BY 1`;
    const [before, acls] = [await found(url), await rowsOf(url, aclSql)];
    await onServer(
      url,
      "ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO pg_monitor",
      "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO pg_monitor",
      "DROP FUNCTION hawser.retry_dead_letters(bigint[])",
      evil,
      "ALTER FUNCTION hawser.release_name(text, boolean) SECURITY INVOKER",
      "ALTER FUNCTION hawser.own_name RESET search_path",
      "DROP VIEW hawser.outbox_status",
      "DROP TRIGGER listeners_notify ON hawser_data.listeners",
      "ALTER TABLE hawser_data.mesh_secret DISABLE TRIGGER mesh_secret_notify",
    );
    const { warnings, missingPrivileges } = await install({ databaseUrl: url, nats: false });
    expect({ warnings, missingPrivileges }).toEqual({ warnings: [], missingPrivileges: [] });
    for (const kind of ["relations", "parts", "functions"] as const) {
      expect(sorted((await found(url))[kind]), kind).toEqual(sorted(before[kind]));
    }
    expect(
      await rowsOf(url, "SELECT tgenabled AS enabled FROM pg_trigger WHERE tgname = 'mesh_secret_notify'"),
    ).toEqual([{ enabled: "O" }]);
    expect(await rowsOf(url, aclSql)).toEqual(acls);
  });

  it("prints in a dry run what it would make anew, and nothing where all is as it should be", async () => {
    await using database = await testDatabase({ nats: false });
    const plan = async () => (await install({ databaseUrl: database.url, nats: false, dryRun: true })).sql;
    expect(await plan()).not.toContain("CREATE OR REPLACE FUNCTION");
    await onServer(database.url, evil);
    const planned = (await plan())!;
    expect(planned.match(/CREATE OR REPLACE FUNCTION \S+\(/g)).toEqual([
      "CREATE OR REPLACE FUNCTION hawser.id_of_topic(",
    ]);
    await onServer(database.url, planned);
    expect(await plan()).not.toContain("CREATE OR REPLACE FUNCTION");
  });

  it.each([
    [
      "ALTER TABLE hawser_data.peers RENAME TO peers_old",
      "the table hawser_data.peers is missing",
      "ALTER TABLE hawser_data.peers_old RENAME TO peers;",
    ],
    ["DROP TABLE hawser_data.saved_messages", "the table hawser_data.saved_messages is missing", "from a backup"],
    [
      "ALTER TABLE hawser_data.peers RENAME COLUMN clean TO tidy",
      "the column clean of hawser_data.peers is missing",
      "RENAME COLUMN … TO clean;",
    ],
    [
      "ALTER TABLE hawser_data.topics ALTER COLUMN id TYPE bigint",
      "the column id of hawser_data.topics has the type bigint and not integer",
      "ALTER TABLE hawser_data.topics ALTER COLUMN id TYPE integer",
    ],
    [
      "ALTER TABLE hawser_data.peers ALTER COLUMN clean DROP DEFAULT",
      "the column clean of hawser_data.peers has no default",
      "(clean boolean DEFAULT",
    ],
    ["ALTER TABLE hawser_data.migrations RENAME TO m", "there is no hawser_data.migrations", "RENAME TO migrations"],
  ])("refuses what it cannot bring back: %s", async (statement, what, remedy) => {
    await using database = await testDatabase({ nats: false });
    await onServer(database.url, statement);
    for (const dryRun of [true, false]) {
      await expect(install({ databaseUrl: database.url, nats: false, dryRun })).rejects.toMatchObject({
        code: "schema_missing",
        message: expect.stringContaining(what),
        remedy: expect.stringContaining(remedy),
      });
    }
  });

  it("refuses the tables without the functions' schema, and makes that again where its remedy was followed", async () => {
    await using database = await testDatabase({ nats: false });
    await onServer(database.url, "DROP SCHEMA hawser CASCADE");
    const refused = {
      code: "schema_missing",
      remedy: expect.stringContaining("CREATE SCHEMA hawser; then run `hawser init`"),
    };
    await expect(install({ databaseUrl: database.url, nats: false })).rejects.toMatchObject(refused);
    await expect(migrate({ databaseUrl: database.url })).rejects.toMatchObject(refused);
    await onServer(database.url, "CREATE SCHEMA hawser");
    expect(await install({ databaseUrl: database.url, nats: false })).toMatchObject({
      missingPrivileges: [],
      warnings: [],
    });
    await using fresh = await testDatabase({ nats: false });
    const [restored, made] = [await found(database.url), await found(fresh.url)];
    for (const kind of ["relations", "parts", "functions"] as const)
      expect(sorted(restored[kind]), kind).toEqual(sorted(made[kind]));
  });

  it("names what guards data, with statements that make it again", async () => {
    await using database = await testDatabase({ nats: false });
    const { url } = database;
    await onServer(
      url,
      "DROP INDEX hawser_data.dead_letters_created_at",
      "ALTER TABLE hawser_data.peers DROP CONSTRAINT peers_epoch_range",
      "ALTER TABLE hawser_data.topics DROP CONSTRAINT topics_id_key",
      "ALTER TABLE hawser_data.listeners ALTER COLUMN epoch DROP NOT NULL",
    );
    const { warnings } = await install({ databaseUrl: url, nats: false });
    const remedies = warnings.map(
      (line) => /^the (?:index|constraint|column) \S+ of \S+ (?:is missing|may be NULL): (.+)$/.exec(line)?.[1],
    );
    expect(remedies).toHaveLength(4);
    for (const statement of remedies.flatMap((remedy) => remedy!.split("; "))) await onServer(url, statement);
    expect((await install({ databaseUrl: url, nats: false })).warnings).toEqual([]);
  });
});
