import pg from "pg";
import { afterAll, describe, expect, it, onTestFinished } from "vitest";
import { compareMigratedSchema } from "../../scripts/verify/compare-schema.js";
import { checksumOf, migrate, migrations, programSchema } from "../../src/jobs-and-peers/migrations/index.js";
import type { Migration, ProgramSchema } from "../../src/jobs-and-peers/migrations/migrations.js";
import { openStore } from "../../src/jobs-and-peers/peer-store/store.js";
import { type TestDatabase, type TestDatabaseOptions, testDatabase, testServerUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";

const last = migrations.at(-1)!;
const next: Migration = {
  id: last.id + 1,
  name: "add a table",
  oldestProgram: last.id + 1,
  sql: "CREATE TABLE hawser.extra (id integer);",
};
const withNext = withSteps([...migrations, next]);

/** This program with other steps. */
function withSteps(steps: readonly Migration[]): ProgramSchema {
  return { ...programSchema, steps };
}

/** As another user of the same server. */
function as(user: string, databaseUrl: string): string {
  const url = new URL(databaseUrl);
  url.username = user;
  url.password = "test";
  return url.href;
}

describe("migrate", () => {
  const databases: TestDatabase[] = [];
  const database = async (options: TestDatabaseOptions = {}): Promise<string> => {
    const made = await testDatabase(options);
    databases.push(made);
    return made.url;
  };
  afterAll(async () => {
    for (const each of databases) await each.drop();
  });

  it("creates the schema once, however many processes start at the same time, with a mesh secret of its own", async () => {
    const url = await database({ migrated: false });
    const reports = await Promise.all(Array.from({ length: 8 }, () => migrate({ databaseUrl: url })));
    expect(reports.flatMap(({ applied }) => applied)).toEqual(migrations.map(({ id }) => id));
    const rows = await rowsOf(url, "SELECT id, name, checksum FROM hawser_data.migrations ORDER BY id");
    expect(rows).toEqual(migrations.map((step) => ({ id: step.id, name: step.name, checksum: checksumOf(step) })));
    const secretsSql = "SELECT encode(secret, 'hex') AS secret FROM hawser_peer_data.mesh_secret";
    const secrets = await rowsOf(url, secretsSql);
    expect(secrets).toEqual([{ secret: expect.stringMatching(/^[0-9a-f]{64}$/) }]);
    expect(await rowsOf(await database(), secretsSql)).not.toEqual(secrets);
  });

  it("opens no connection if a store finds the schema complete", async () => {
    await using database = await testDatabase();
    await using store = await openStore({ databaseUrl: database.url });
    await onServer(testServerUrl(), `ALTER DATABASE ${database.name} ALLOW_CONNECTIONS false`);
    await store.migrate();
    await store.migrate();
  });

  it("replaces functions and makes their grants in the transaction that records them", async () => {
    // Each object has been written last by that transaction: the grants belong to it, too.
    const writersSql = `
      SELECT DISTINCT o.writer FROM (
        SELECT p.xmin::text AS writer FROM pg_proc AS p WHERE p.pronamespace = 'hawser'::regnamespace
        UNION ALL SELECT c.xmin::text FROM pg_class AS c WHERE c.relnamespace = 'hawser'::regnamespace AND c.relkind = 'v'
        UNION ALL SELECT m.xmin::text FROM hawser_data.migrations AS m WHERE m.id = ${next.id}) AS o`;
    const url = await database({ nats: false });
    const writers = () => rowsOf(url, writersSql);
    expect((await migrate({ databaseUrl: url })).applied).toEqual([]);
    const changed = { ...withNext, functions: `${programSchema.functions}\n-- Changed.` };
    expect((await migrate({ databaseUrl: url }, changed)).applied).toEqual([next.id]);
    const first = await writers();
    expect(first).toHaveLength(1);
    expect((await migrate({ databaseUrl: url }, changed)).applied).toEqual([]);
    expect(await writers()).toEqual(first);
    expect((await migrate({ databaseUrl: url }, withNext)).applied).toEqual([]);
    const second = await writers();
    expect(second).toHaveLength(1);
    expect(second).not.toEqual(first);
  });

  it("names the statement of a step that the server refuses", async () => {
    const url = await database({ nats: false });
    const sql = `${next.sql};\nCREATE FUNCTION hawser.depth(\n  interval text\n) RETURNS void LANGUAGE sql AS '';\nSELECT 1`;
    await expect(migrate({ databaseUrl: url }, withSteps([...migrations, { ...next, sql }]))).rejects.toThrow(
      /^could not apply migration \d+ \(add a table\), at CREATE FUNCTION hawser\.depth: syntax error/,
    );
  });

  it("restarts a step that caused a deadlock with a running peer", async () => {
    const url = await database({ nats: false });
    const altering: Migration = {
      id: next.id,
      name: "add columns",
      oldestProgram: next.id,
      sql: "ALTER TABLE hawser_peer_data.cursors ADD COLUMN a integer; ALTER TABLE hawser_peer_data.stored_messages ADD COLUMN b integer;",
    };
    const peer = new pg.Client(url);
    await peer.connect();
    onTestFinished(() => peer.end());
    // Postgres ends the one that looks for a deadlock first: the step, as the peer does not look.
    await peer.query("SET deadlock_timeout = '1h'; BEGIN; SELECT FROM hawser_peer_data.stored_messages");
    const migrating = migrate({ databaseUrl: url }, withSteps([...migrations, altering]));
    await eventually("the step waits for the peer", async () => {
      const waiting = await rowsOf(
        url,
        "SELECT FROM pg_locks WHERE NOT granted AND relation = 'hawser_peer_data.stored_messages'::regclass",
      );
      return waiting.length > 0;
    });
    await peer.query("SELECT FROM hawser_peer_data.cursors; COMMIT");
    expect((await migrating).applied).toEqual([next.id]);
  });

  it("works for a role that may create only its own objects, and reports the skipped grants", async () => {
    const url = await database({ migrated: false });
    const role = `hawser_test_${process.pid}`;
    const { pathname } = new URL(url);
    await onServer(
      url,
      `CREATE ROLE ${role} LOGIN PASSWORD 'test'`,
      `GRANT CREATE ON DATABASE ${pathname.slice(1)} TO ${role}`,
    );
    try {
      const report = await migrate({ databaseUrl: as(role, url) });
      expect(report.applied).toEqual(migrations.map(({ id }) => id));
      expect(report.leftOut.join("\n")).toContain(`${role} may not give the schema hawser to hawser_owner`);
      await using store = await openStore({ databaseUrl: as(role, url) });
      await (await store.takeName("one", { waitMs: 0 })).release({ clean: true });
    } finally {
      await onServer(url, `DROP OWNED BY ${role}`, `DROP ROLE ${role}`);
    }
  });

  it("is detected if it results in another schema", async () => {
    const changes = [
      "ALTER TABLE hawser_peer_data.listeners DROP CONSTRAINT listeners_epoch_range",
      "DROP INDEX hawser_data.dead_letters_created_at",
      "ALTER TABLE hawser_peer_data.id_counter ALTER last_id DROP NOT NULL",
      "ALTER TABLE hawser_peer_data.peers ALTER clean SET DEFAULT false",
      "COMMENT ON COLUMN hawser_peer_data.id_counter.last_id IS 'Another comment.'",
      "DROP TRIGGER listeners_notify ON hawser_peer_data.listeners",
      "CREATE OR REPLACE FUNCTION hawser.id_of_topic(p_topic text, OUT id integer) LANGUAGE sql AS 'SELECT 1'",
    ];
    const sql = migrations.map((step) => step.sql).join("\n");
    const lines = await compareMigratedSchema(await database({ migrated: false }), {
      steps: [{ id: 1, name: "wrong", oldestProgram: 1, sql }],
      functions: `${programSchema.functions};\n${changes.join(";\n")};`,
      dropped: [],
    });
    expect(lines.map((line) => line.split(":", 1)[0]).filter((object) => !object?.includes("_not_null"))).toEqual([
      "column hawser_peer_data.id_counter.last_id",
      "column hawser_peer_data.peers.clean",
      "comment on column last_id of table hawser_peer_data.id_counter",
      "constraint listeners_epoch_range on hawser_peer_data.listeners",
      "function id_of_topic(p_topic text, OUT id integer)",
      "index hawser_data.dead_letters_created_at",
      "relation hawser_data.dead_letters_created_at",
      "trigger listeners_notify on hawser_peer_data.listeners",
    ]);
  });
});
