/**
 * Databases that a version cannot take over: what is there, and what to do, is said, and nothing is changed.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { migrate, migrations, programSchema } from "../../src/jobs-and-peers/migrations/index.js";
import { install } from "../../src/operating/installation/index.js";
import { listPeers, withCommandDatabase } from "../../src/operating/operate/index.js";
import { objectsSql, stateOf } from "../store/support/database-state.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { onServer, rowsOf } from "../support/on-server.js";

const next = migrations.length + 1;

const init = (databaseUrl: string) => install({ databaseUrl });
const dryRun = (databaseUrl: string) => install({ databaseUrl, dryRun: true });
const start = (databaseUrl: string) => migrate({ databaseUrl });
const command = (databaseUrl: string) => withCommandDatabase(databaseUrl, listPeers);
const all = { init, dryRun, start, command };

async function expectRefusals(url: string, refused: Partial<typeof all>, error: object): Promise<void> {
  const before = await stateOf(url);
  for (const [name, run] of Object.entries(refused)) await expect(run(url), name).rejects.toMatchObject(error);
  expect(await stateOf(url)).toEqual(before);
}

it("a database between two releases is refused, with the migration that has changed", async () => {
  await using database = await testDatabase();
  await onServer(database.url, "UPDATE hawser_data.migrations SET checksum = 'other' WHERE id = 1");
  await expectRefusals(database.url, all, {
    code: "store_failed",
    message: expect.stringMatching(/migration 1 \(initial schema\) was changed.*Nothing was done/),
    remedy: expect.stringContaining("DROP SCHEMA hawser, hawser_data, hawser_peer_data, hawser_bridge_data CASCADE"),
  });
});

describe("a database of a newer version", () => {
  it("that this one suits is used as it is, and only an installation is refused", async () => {
    await using database = await testDatabase();
    await onServer(
      database.url,
      `INSERT INTO hawser_data.migrations (id, name, checksum, oldest_program, functions) VALUES (${next}, 'later', '', ${migrations.length}, 'other')`,
    );
    await expectRefusals(
      database.url,
      { init, dryRun },
      {
        code: "schema_too_new",
        message: expect.stringContaining(
          `a newer version has prepared this database: it has migration ${next} (later), and this version knows only ${migrations.length}`,
        ),
        remedy: expect.stringContaining("`hawser init` of the newer version"),
      },
    );
    const before = await stateOf(database.url);
    expect(await start(database.url)).toEqual({ applied: [], leftOut: [] });
    await command(database.url);
    expect(await stateOf(database.url)).toEqual(before);
  });

  it("for which this one is too old is refused", async () => {
    await using database = await testDatabase();
    await onServer(
      database.url,
      `INSERT INTO hawser_data.migrations (id, name, checksum, oldest_program) VALUES (${next}, 'later', '', ${next}), (${next + 1}, 'last', '', 1)`,
    );
    await expectRefusals(database.url, all, {
      code: "schema_too_new",
      message: expect.stringContaining(`the database has migration ${next} (later), and this version knows only`),
    });
  });
});

describe("an empty database", () => {
  let database: TestDatabase;
  beforeAll(async () => {
    database = await testDatabase({ migrated: false });
  });
  afterAll(() => database.drop());

  it.each([
    [
      `CREATE TABLE hawser.migrations (id integer, name text, checksum text, applied_at timestamptz);
       INSERT INTO hawser.migrations VALUES (1, 'initial schema', ''), (2, 'outbox', '');
       CREATE TABLE hawser.peers (name text)`,
      "schema_missing",
      "there is hawser.migrations, but there is no hawser_data.migrations, which records",
    ],
    [
      "CREATE TABLE hawser_peer_data.peers (id integer)",
      "schema_missing",
      "hawser_peer_data.peers, but there is no hawser_data.migrations",
    ],
    ["CREATE VIEW hawser.outbox_status AS SELECT 1 AS one", "schema_missing", "hawser.outbox_status, but there is no"],
    ["CREATE TYPE hawser.other AS (one integer)", "schema_missing", "hawser.other, but there is no"],
    [
      "CREATE FUNCTION hawser.cancel(id bigint) RETURNS text LANGUAGE sql AS 'SELECT 1::text'",
      "schema_missing",
      "the function hawser.cancel, but there is no",
    ],
    [
      "CREATE TABLE hawser_data.migrations (version text, done boolean)",
      "name_occupied",
      "the table hawser_data.migrations is not Hawser's: it has the columns version, done. Nothing was done",
    ],
    ["CREATE TABLE hawser_data.migrations ()", "name_occupied", "it has no columns. Nothing was done"],
  ])("with objects of others under Hawser's names is refused: %s", async (statement, code, message) => {
    const [, schema] = /(hawser\w*)\./.exec(statement)!;
    await onServer(database.url, `CREATE SCHEMA ${schema}`, statement);
    const error = await init(database.url).catch((thrown) => thrown);
    expect(`${error.message} ${error.remedy}`).toContain(`DROP SCHEMA ${schema} CASCADE`);
    const isOld = statement.startsWith("CREATE TABLE hawser.");
    const remedy = /version before the first release, or not Hawser's.*for `hawser dev`, name a new directory/;
    expect(remedy.test(error.remedy)).toBe(isOld);
    await expectRefusals(database.url, all, { code, message: expect.stringContaining(message) });
    await onServer(database.url, `DROP SCHEMA ${schema} CASCADE`);
  });
});

describe("functions that are in use", () => {
  it("are not dropped, and the object is named", async () => {
    await using database = await testDatabase();
    await onServer(database.url, "CREATE VIEW public.mine AS SELECT hawser.error_sqlstate('x') AS state");
    const program = {
      ...programSchema,
      functions: `${programSchema.functions}\n-- Other.`,
      dropped: [{ step: migrations.length, last: false, sql: "DROP FUNCTION IF EXISTS hawser.error_sqlstate(text);" }],
    };
    const before = await rowsOf(database.url, objectsSql);
    await expect(migrate({ databaseUrl: database.url }, program)).rejects.toMatchObject({
      code: "name_occupied",
      message: expect.stringMatching(/view public\.mine depends on function hawser\.error_sqlstate/),
    });
    expect(await rowsOf(database.url, objectsSql)).toEqual(before);
    await onServer(database.url, "DROP VIEW public.mine");
    expect((await migrate({ databaseUrl: database.url }, program)).applied).toEqual([]);
    expect(
      await rowsOf(
        database.url,
        "SELECT has_function_privilege('hawser_peer', 'hawser.error_sqlstate(text)', 'EXECUTE') AS granted",
      ),
    ).toEqual([{ granted: true }]);
  });
});

describe("an installation that is cut off", () => {
  it("by a statement that fails changes nothing of the last step, and the next one completes it", async () => {
    await using database = await testDatabase();
    const step = {
      id: next,
      name: "later",
      oldestProgram: 1,
      sql: "ALTER TABLE hawser_peer_data.peers ADD COLUMN note text;",
    };
    const program = { ...programSchema, steps: [...migrations, step] };
    const broken = { ...program, functions: `${programSchema.functions}\nSELECT 1 / 0;` };
    const before = await rowsOf(database.url, objectsSql);
    await expect(migrate({ databaseUrl: database.url }, broken)).rejects.toMatchObject({
      code: "store_failed",
      message: expect.stringContaining(`could not apply migration ${next} (later)`),
    });
    expect(await rowsOf(database.url, objectsSql)).toEqual(before);
    expect((await migrate({ databaseUrl: database.url }, program)).applied).toEqual([next]);
  });

  it("between two steps drops what the version before had, all the same", async () => {
    await using database = await testDatabase();
    const step = (id: number, sql: string) => ({ id, name: `step ${id}`, oldestProgram: 1, sql });
    const drop = (last: boolean, name: string) => ({
      step: migrations.length,
      last,
      sql: `DROP FUNCTION hawser.${name};`,
    });
    await onServer(
      database.url,
      "CREATE FUNCTION hawser.goes() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
      // As one of Hawser's views that the next version defines without the function.
      "CREATE VIEW hawser.shown AS SELECT hawser.goes() AS one",
      "CREATE FUNCTION hawser.changes() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    );
    const program = {
      steps: [...migrations, step(next, ""), step(next + 1, "")],
      functions: `${programSchema.functions}\nCREATE FUNCTION hawser.changes() RETURNS text LANGUAGE sql AS $$ SELECT 'other' $$;
        CREATE OR REPLACE VIEW hawser.shown AS SELECT 1 AS one;`,
      dropped: [drop(false, "changes()"), drop(true, "goes()")],
    };
    const broken = { ...program, steps: [...migrations, step(next, ""), step(next + 1, "SELECT 1 / 0;")] };
    await expect(migrate({ databaseUrl: database.url }, broken)).rejects.toMatchObject({ code: "store_failed" });
    expect((await migrate({ databaseUrl: database.url }, program)).applied).toEqual([next + 1]);
    expect(
      await rowsOf(database.url, "SELECT to_regproc('hawser.goes') IS NULL AS gone, hawser.changes() AS changed"),
    ).toEqual([{ gone: true, changed: "other" }]);
  });
});
