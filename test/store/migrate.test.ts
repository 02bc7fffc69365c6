import pg from "pg";
import { afterAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { peerGrantsSql } from "../../generated/ts/sql/peer-schema.js";
import { compareMigratedSchema, makeNatsFunctions } from "../../scripts/verify/compare-schema.js";
import {
  checksumOf,
  type Migration,
  migrate,
  migrations,
  openStore,
  type ProgramSchema,
  programSchema,
} from "../../src/store/index.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";

const [initial] = migrations as readonly [Migration, ...Migration[]];
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
  let url: string;

  beforeEach(async () => {
    const database = await testDatabase({ migrated: false });
    databases.push(database);
    url = database.url;
  });
  afterAll(async () => {
    for (const database of databases) await database.drop();
  });

  it("creates the schema once, however many processes start at the same time", async () => {
    const reports = await Promise.all(Array.from({ length: 8 }, () => migrate({ databaseUrl: url })));
    expect(reports.flatMap(({ applied }) => applied)).toEqual(migrations.map(({ id }) => id));
    const rows = await rowsOf(url, "SELECT id, name, checksum FROM hawser_data.migrations ORDER BY id");
    expect(rows).toEqual(migrations.map((step) => ({ id: step.id, name: step.name, checksum: checksumOf(step) })));
  });

  it("creates a mesh secret of 32 bytes, different in each database", async () => {
    await migrate({ databaseUrl: url });
    const other = await testDatabase({ migrated: false });
    databases.push(other);
    await migrate({ databaseUrl: other.url });
    await using store = await openStore({ databaseUrl: url });
    await using otherStore = await openStore({ databaseUrl: other.url });
    const [secrets, otherSecrets] = [await store.secrets(), await otherStore.secrets()];
    expect(secrets.map((secret) => secret.length)).toEqual([32]);
    expect(secrets).not.toEqual(otherSecrets);
    await onServer(url, "INSERT INTO hawser_data.mesh_secret (id, secret) VALUES (2, decode(repeat('ab', 32), 'hex'))");
    expect((await store.secrets()).map((secret) => secret[0])).toEqual([0xab, secrets[0]![0]]);
  });

  it("applies only new steps", async () => {
    expect((await migrate({ databaseUrl: url })).applied).toEqual(migrations.map(({ id }) => id));
    expect((await migrate({ databaseUrl: url })).applied).toEqual([]);
    expect((await migrate({ databaseUrl: url }, withNext)).applied).toEqual([next.id]);
  });

  it("replaces functions and makes their grants in the transaction that records them", async () => {
    // Each object has been written last by that transaction: the grants belong to it, too.
    const writersSql = `
      SELECT DISTINCT o.writer FROM (
        SELECT p.xmin::text AS writer FROM pg_proc AS p WHERE p.pronamespace = 'hawser'::regnamespace
        UNION ALL SELECT c.xmin::text FROM pg_class AS c WHERE c.relnamespace = 'hawser'::regnamespace AND c.relkind = 'v'
        UNION ALL SELECT m.xmin::text FROM hawser_data.migrations AS m WHERE m.id = ${next.id}) AS o`;
    const writers = () => rowsOf(url, writersSql);
    await migrate({ databaseUrl: url });
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

  it("refuses a schema that is newer than the program", async () => {
    await migrate({ databaseUrl: url }, withNext);
    const older = migrate({ databaseUrl: url });
    await expect(older).rejects.toMatchObject({ code: "schema_too_new", retryable: false });
    await expect(older).rejects.toThrow(`migration ${next.id} (add a table)`);
  });

  it("refuses a migration that was edited after it had been applied", async () => {
    await migrate({ databaseUrl: url });
    const edited = { ...initial, sql: `${initial.sql}\n-- edited` };
    await expect(migrate({ databaseUrl: url }, withSteps([edited, ...migrations.slice(1)]))).rejects.toThrow(
      "was changed after it had been applied",
    );
  });

  it("explains the repair of a database between two releases", async () => {
    await migrate({ databaseUrl: url });
    const changed = withSteps(migrations.map((step) => (step.id === 1 ? { ...step, sql: `${step.sql}\n` } : step)));
    await expect(migrate({ databaseUrl: url }, changed)).rejects.toMatchObject({
      code: "store_failed",
      message: expect.stringContaining("between two releases"),
      remedy: expect.stringMatching(/DROP SCHEMA hawser, hawser_data CASCADE.*`hawser init`/),
    });
  });

  it("leaves nothing behind of a failed step, and continues from there", async () => {
    await migrate({ databaseUrl: url });
    const broken = withSteps([...migrations, { ...next, sql: `${next.sql} SELECT 1/0;` }]);
    await expect(migrate({ databaseUrl: url }, broken)).rejects.toMatchObject({ code: "store_failed" });
    await expect(migrate({ databaseUrl: url }, broken)).rejects.toThrow(`apply migration ${next.id} (add a table)`);
    expect((await migrate({ databaseUrl: url }, withNext)).applied).toEqual([next.id]);
  });

  it("names the statement of a step that the server refuses", async () => {
    const sql = `${next.sql};\nCREATE FUNCTION hawser.depth(\n  interval text\n) RETURNS void LANGUAGE sql AS '';\nSELECT 1`;
    await expect(migrate({ databaseUrl: url }, withSteps([...migrations, { ...next, sql }]))).rejects.toThrow(
      /^could not apply migration \d+ \(add a table\), at CREATE FUNCTION hawser\.depth: syntax error/,
    );
  });

  it("restarts a step that caused a deadlock with a running peer", async () => {
    await migrate({ databaseUrl: url });
    const altering: Migration = {
      id: next.id,
      name: "add columns",
      oldestProgram: next.id,
      sql: "ALTER TABLE hawser_data.cursors ADD COLUMN a integer; ALTER TABLE hawser_data.stored_messages ADD COLUMN b integer;",
    };
    const peer = new pg.Client(url);
    await peer.connect();
    onTestFinished(() => peer.end());
    // Postgres ends the one that looks for a deadlock first: the step, as the peer does not look.
    await peer.query("SET deadlock_timeout = '1h'; BEGIN; SELECT FROM hawser_data.stored_messages");
    const migrating = migrate({ databaseUrl: url }, withSteps([...migrations, altering]));
    await eventually("the step waits for the peer", async () => {
      const waiting = await rowsOf(
        url,
        "SELECT FROM pg_locks WHERE NOT granted AND relation = 'hawser_data.stored_messages'::regclass",
      );
      return waiting.length > 0;
    });
    await peer.query("SELECT FROM hawser_data.cursors; COMMIT");
    expect((await migrating).applied).toEqual([next.id]);
  });

  it("works for a role that may create only its own objects, and reports the skipped grants", async () => {
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

  it("results in the schema of the spec", async () => {
    expect(await compareMigratedSchema(url)).toEqual([]);
  });

  it("is detected if it results in another schema", async () => {
    const changes = [
      "ALTER TABLE hawser_data.listeners DROP CONSTRAINT listeners_epoch_range",
      "DROP INDEX hawser_data.dead_letters_created_at",
      "ALTER TABLE hawser_data.id_counter ALTER last_id DROP NOT NULL",
      "ALTER TABLE hawser_data.peers ALTER clean SET DEFAULT false",
      "COMMENT ON COLUMN hawser_data.id_counter.last_id IS 'Another comment.'",
      "DROP TRIGGER listeners_notify ON hawser_data.listeners",
      "CREATE OR REPLACE FUNCTION hawser.id_of_topic(p_topic text, OUT id integer) LANGUAGE sql AS 'SELECT 1'",
    ];
    const sql = migrations.map((step) => step.sql).join("\n");
    const lines = await compareMigratedSchema(url, {
      steps: [{ id: 1, name: "wrong", oldestProgram: 1, sql }],
      functions: `${programSchema.functions};\n${changes.join(";\n")};`,
      dropped: [],
    });
    expect(lines.map((line) => line.split(":", 1)[0]).filter((object) => !object?.includes("_not_null"))).toEqual([
      "column hawser_data.id_counter.last_id",
      "column hawser_data.peers.clean",
      "comment on column last_id of table hawser_data.id_counter",
      "constraint listeners_epoch_range on hawser_data.listeners",
      "function id_of_topic(p_topic text, OUT id integer)",
      "index hawser_data.dead_letters_created_at",
      "relation hawser_data.dead_letters_created_at",
      "trigger listeners_notify on hawser_data.listeners",
    ]);
  });

  it("accepts the functions of NATS, and names one that it does not accept", async () => {
    await makeNatsFunctions(url);
    const wrong =
      "CREATE FUNCTION @extschema@.nats_look() RETURNS TABLE (\n  at text,\n  position bigint\n) LANGUAGE sql AS ''";
    await expect(makeNatsFunctions(url, wrong)).rejects.toThrow(
      'could not make the SQL functions, at CREATE FUNCTION public.nats_look: syntax error at or near "position"',
    );
  });

  it("repeats grants without errors", async () => {
    await migrate({ databaseUrl: url });
    await onServer(url, peerGrantsSql);
  });
});
