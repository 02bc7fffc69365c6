/**
 * The objects of the schema `hawser` that were dropped, renamed or replaced since it was made.
 */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { migrate } from "../../src/jobs-and-peers/migrations/index.js";
import { declaredSchema, foundSchema } from "../../src/operating/installation/declared-schema.js";
import { install } from "../../src/operating/installation/index.js";
import { queryRunner } from "../../src/operating/installation/objects.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { onServer, rowsOf } from "../support/on-server.js";

/** Objects of the schema in a database. */
async function found(databaseUrl: string) {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    return await foundSchema(queryRunner(client));
  } finally {
    await client.end();
  }
}

/** Items of a list as comparable texts, without their order. */
function sorted(items: readonly object[]): string[] {
  return items.map((item) => JSON.stringify(Object.entries({ ...item, statement: "", isValid: true }).sort())).sort();
}

/** Expects the objects that the generated SQL declares, each of them. */
async function expectWhole(databaseUrl: string): Promise<void> {
  const [there, declared] = [await found(databaseUrl), declaredSchema()];
  for (const kind of ["relations", "parts", "functions"] as const) {
    expect(declared[kind].length, kind).toBeGreaterThan(30);
    expect(sorted(there[kind]), kind).toEqual(sorted(declared[kind]));
  }
}

const evil = "CREATE OR REPLACE FUNCTION hawser.id_of_topic(p_topic text, OUT id integer) LANGUAGE sql AS 'SELECT 1'";

describe("a schema that hawser init has made", () => {
  /** Each test leaves it as it was. */
  let database: TestDatabase;
  let url: string;
  beforeAll(async () => {
    database = await testDatabase({ nats: false });
    url = database.url;
  });
  afterAll(() => database?.drop());

  const init = (dryRun = false) => install({ databaseUrl: url, nats: false, dryRun });

  it("has the objects that the generated SQL declares, each of them", () => expectWhole(url));

  it("gets functions, views and triggers anew by another init, with their owner and their privileges and no others", async () => {
    const aclSql = `
      SELECT p.oid::regprocedure::text AS name, pg_get_userbyid(p.proowner) AS owner, p.proacl::text AS acl FROM pg_proc AS p
       WHERE p.pronamespace = 'hawser'::regnamespace
      UNION ALL
      SELECT c.oid::regclass::text, pg_get_userbyid(c.relowner), c.relacl::text FROM pg_class AS c
       WHERE c.relnamespace IN ('hawser'::regnamespace, 'hawser_data'::regnamespace, 'hawser_peer_data'::regnamespace, 'hawser_bridge_data'::regnamespace) AND c.relkind = 'v' ORDER BY 1`;
    const acls = await rowsOf(url, aclSql);
    await onServer(
      url,
      "ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO pg_monitor",
      "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO pg_monitor",
      "DROP FUNCTION hawser.retry_dead_letters(bigint[])",
      evil,
      "ALTER FUNCTION hawser.release_name(text, boolean) SECURITY INVOKER",
      "ALTER FUNCTION hawser.own_name RESET search_path",
      "DROP VIEW hawser.outbox_status",
      "DROP TRIGGER listeners_notify ON hawser_peer_data.listeners",
      "ALTER TABLE hawser_peer_data.mesh_secret DISABLE TRIGGER mesh_secret_notify",
    );
    expect(await init()).toMatchObject({ warnings: [], missingPrivileges: [] });
    await expectWhole(url);
    expect(
      await rowsOf(url, "SELECT tgenabled AS enabled FROM pg_trigger WHERE tgname = 'mesh_secret_notify'"),
    ).toEqual([{ enabled: "O" }]);
    expect(await rowsOf(url, aclSql)).toEqual(acls);
    await onServer(
      url,
      "ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM pg_monitor",
      "ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM pg_monitor",
    );
  });

  it("gets from a dry run the SQL of what it would make anew, and none where all is as it should be", async () => {
    const plan = async () => (await init(true)).sql!;
    expect(await plan()).not.toContain("CREATE OR REPLACE FUNCTION");
    await onServer(url, evil);
    const planned = await plan();
    expect(planned.match(/CREATE OR REPLACE FUNCTION \S+\(/g)).toEqual([
      "CREATE OR REPLACE FUNCTION hawser.id_of_topic(",
    ]);
    await onServer(url, planned);
    expect(await plan()).not.toContain("CREATE OR REPLACE FUNCTION");
  });

  it("has lost indexes, constraints and NOT NULLs named by init, with statements that make them again", async () => {
    await onServer(
      url,
      "DROP INDEX hawser_data.dead_letters_created_at",
      "ALTER TABLE hawser_peer_data.peers DROP CONSTRAINT peers_epoch_range",
      "ALTER TABLE hawser_peer_data.topics DROP CONSTRAINT topics_id_key",
      "ALTER TABLE hawser_peer_data.listeners ALTER COLUMN epoch DROP NOT NULL",
    );
    const remedies = (await init()).warnings.map(
      (line) => /^the (?:index|constraint|column) \S+ of \S+ (?:is missing|may be NULL): (.+)$/.exec(line)?.[1],
    );
    expect(remedies).toHaveLength(4);
    await onServer(url, ...remedies.flatMap((remedy) => remedy!.split("; ")));
    expect((await init()).warnings).toEqual([]);
  });

  it("is refused without the schema of the functions, which init makes again where its remedy was followed", async () => {
    await onServer(url, "DROP SCHEMA hawser CASCADE");
    const refused = {
      code: "schema_missing",
      remedy: expect.stringContaining("CREATE SCHEMA hawser; then run `hawser init`"),
    };
    await expect(init()).rejects.toMatchObject(refused);
    await expect(migrate({ databaseUrl: url })).rejects.toMatchObject(refused);
    await onServer(url, "CREATE SCHEMA hawser");
    expect(await init()).toMatchObject({ missingPrivileges: [], warnings: [] });
    await expectWhole(url);
  });
});

describe("hawser init", () => {
  it.each([
    {
      what: "tables and columns",
      lost: [
        {
          statement: "ALTER TABLE hawser_peer_data.peers RENAME TO peers_old",
          says: "the table hawser_peer_data.peers is missing",
          remedy: "ALTER TABLE hawser_peer_data.peers_old RENAME TO peers;",
        },
        {
          statement: "DROP TABLE hawser_bridge_data.saved_messages CASCADE",
          says: "the table hawser_bridge_data.saved_messages is missing",
          remedy: "RENAME TO saved_messages; else restore the schemas of the tables from a backup",
        },
        {
          statement: "ALTER TABLE hawser_peer_data.cursors RENAME COLUMN has_rows TO rows_there",
          says: "the column has_rows of hawser_peer_data.cursors is missing",
          remedy: "RENAME COLUMN … TO has_rows;",
        },
        {
          statement: "ALTER TABLE hawser_peer_data.topics ALTER COLUMN id TYPE bigint",
          says: "the column id of hawser_peer_data.topics has the type bigint and not integer",
          remedy: "ALTER TABLE hawser_peer_data.topics ALTER COLUMN id TYPE integer",
        },
        {
          statement: "ALTER TABLE hawser_data.dead_letters ALTER COLUMN given_back DROP DEFAULT",
          says: "the column given_back of hawser_data.dead_letters has no default",
          remedy: "(given_back smallint DEFAULT",
        },
      ],
    },
    {
      what: "the table of migrations",
      lost: [
        {
          statement: "ALTER TABLE hawser_data.migrations RENAME TO m",
          says: "there is no hawser_data.migrations",
          remedy: "RENAME TO migrations",
        },
      ],
    },
  ])("refuses what it cannot bring back, $what, and names each with its remedy", async ({ lost }) => {
    await using database = await testDatabase({ nats: false });
    await onServer(database.url, ...lost.map(({ statement }) => statement));
    for (const dryRun of [true, false]) {
      const refused = await install({ databaseUrl: database.url, nats: false, dryRun }).catch(
        (error: unknown) => error,
      );
      for (const { says, remedy } of lost) {
        expect(refused).toMatchObject({
          code: "schema_missing",
          message: expect.stringContaining(says),
          remedy: expect.stringContaining(remedy),
        });
      }
    }
  });
});
