/** Installations beside what others have done: event triggers that fail or enable row security, and row security everywhere. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { migrate } from "../../src/jobs-and-peers/migrations/index.js";
import { install } from "../../src/operating/installation/index.js";
import { login } from "../installation/support/logins.js";
import { enabling, failing, findingsOf, objectsSql, securedSql } from "../store/support/table-state.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { onServer, rowsOf } from "../support/on-server.js";

/** Runs what a dry run has printed. */
async function runPlan(databaseUrl: string): Promise<void> {
  await onServer(databaseUrl, (await install({ databaseUrl, dryRun: true })).sql!);
}

const installers = [
  ["init", (databaseUrl: string) => install({ databaseUrl })],
  ["the start of a peer", (databaseUrl: string) => migrate({ databaseUrl })],
] as const;

// The last case makes the schema.
for (const [by, run] of installers)
  describe(`the first installation, by ${by},`, { shuffle: false }, () => {
    let database: TestDatabase;
    let empty: Record<string, unknown>[];
    beforeAll(async () => {
      database = await testDatabase({ migrated: false });
      empty = await rowsOf(database.url, objectsSql);
    });
    afterAll(() => database.drop());

    const halfWay: [tag: string, nth: number][] = [
      ["CREATE TABLE", 30],
      ["CREATE VIEW", 3],
    ];
    if (by === "init") halfWay.push(["CREATE FOREIGN DATA WRAPPER", 1]);
    it.each(halfWay)("leaves nothing where it fails half way, at %s number %i", async (tag, nth) => {
      await onServer(database.url, ...failing(tag, nth));
      await expect(run(database.url)).rejects.toMatchObject({ message: expect.stringContaining(`no more ${tag}`) });
      await onServer(database.url, "DROP FUNCTION public.refuse() CASCADE", "DROP SEQUENCE public.commands");
      expect(await rowsOf(database.url, objectsSql)).toEqual(empty);
    });

    it("leaves nothing where an event trigger enables row security for tables that it alters, and names it", async () => {
      await onServer(database.url, ...enabling("'CREATE TABLE', 'ALTER TABLE'"));
      await expect(run(database.url)).rejects.toMatchObject({
        code: "schema_missing",
        message: expect.stringMatching(
          /the event trigger secure \(public\.secure\(\)\).*ALTER EVENT TRIGGER secure DISABLE/,
        ),
      });
      await onServer(database.url, "DROP FUNCTION public.secure() CASCADE");
      expect(await rowsOf(database.url, objectsSql)).toEqual(empty);
    });

    it("makes tables without row security, afterwards and where an event trigger enables it for new ones", async () => {
      await onServer(database.url, ...enabling("'CREATE TABLE'"));
      await run(database.url);
      expect(await rowsOf(database.url, securedSql)).toEqual([]);
    });
  });

it("an init beside an event trigger over a table with row security names its function", async () => {
  await using database = await testDatabase({ migrated: false });
  await using owner = await login(database.url);
  await onServer(
    database.url,
    `GRANT CREATE ON DATABASE ${database.name} TO ${owner.role}`,
    "CREATE TABLE public.audit (tag text)",
    "ALTER TABLE public.audit ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY everyone ON public.audit WITH CHECK (true)",
    "GRANT INSERT ON public.audit TO PUBLIC",
    `CREATE FUNCTION public.audit() RETURNS event_trigger LANGUAGE plpgsql
       AS 'BEGIN INSERT INTO public.audit VALUES (tg_tag); END'`,
    "CREATE EVENT TRIGGER audit ON ddl_command_end EXECUTE FUNCTION public.audit()",
  );
  const statement = "ALTER FUNCTION public.audit() SET row_security = on";
  await expect(install({ databaseUrl: owner.url, nats: false })).rejects.toThrow(statement);
  await onServer(database.url, statement);
  await install({ databaseUrl: owner.url, nats: false });
});

it("the SQL of a dry run makes tables without row security, or names the event trigger that undoes that", async () => {
  await using database = await testDatabase({ migrated: false });
  await onServer(database.url, ...enabling("'CREATE TABLE'"));
  await runPlan(database.url);
  expect(await rowsOf(database.url, securedSql)).toEqual([]);
  await using other = await testDatabase({ migrated: false });
  await onServer(other.url, ...enabling("'CREATE TABLE', 'ALTER TABLE'"));
  await expect(runPlan(other.url)).rejects.toThrow("ALTER EVENT TRIGGER secure DISABLE");
});

it("init names the event trigger that undoes its repair", async () => {
  await using database = await testDatabase({ nats: false });
  await onServer(
    database.url,
    ...enabling("'ALTER TABLE'"),
    "ALTER TABLE hawser_peer_data.peers ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE hawser_peer_data.topics ENABLE ROW LEVEL SECURITY",
  );
  const init = () => install({ databaseUrl: database.url, nats: false });
  const words = /the event trigger secure \(public\.secure\(\)\).*ALTER EVENT TRIGGER secure DISABLE/;
  expect((await init()).missingPrivileges).toMatchObject([
    {
      what: expect.stringMatching(words),
      remedy: expect.stringContaining("ALTER TABLE hawser_peer_data.peers DISABLE"),
    },
  ]);
  expect(await findingsOf(database.url)).toMatchObject([{ what: expect.stringMatching(words) }]);
  await onServer(database.url, "ALTER EVENT TRIGGER secure DISABLE");
  expect((await init()).missingPrivileges).toEqual([]);
  expect(await findingsOf(database.url)).toEqual([]);
});

it("a first installation leaves nothing where its role lacks a privilege half way", async () => {
  await using database = await testDatabase({ migrated: false });
  await using installer = await login(database.url);
  await onServer(
    database.url,
    `GRANT CREATE ON DATABASE ${database.name} TO ${installer.role}`,
    "REVOKE USAGE ON TYPE jsonb FROM PUBLIC",
  );
  const before = await rowsOf(database.url, objectsSql);
  for (const run of [install, migrate]) {
    await expect(run({ databaseUrl: installer.url })).rejects.toThrow("permission denied for type jsonb");
  }
  expect(await rowsOf(database.url, objectsSql)).toEqual(before);
});

it("an init of what has row security everywhere, forced on a login that owns it, makes all of it well", async () => {
  await using database = await testDatabase({ migrated: false });
  await using owner = await login(database.url);
  await onServer(database.url, `GRANT CREATE ON DATABASE ${database.name} TO ${owner.role}`);
  await install({ databaseUrl: owner.url, nats: false });
  const tables = await rowsOf(
    database.url,
    "SELECT oid::regclass::text AS name FROM pg_class WHERE relnamespace IN ('hawser'::regnamespace, 'hawser_data'::regnamespace, 'hawser_peer_data'::regnamespace, 'hawser_bridge_data'::regnamespace) AND relkind IN ('r', 'p')",
  );
  const enable = tables.map(({ name }) => `ALTER TABLE ${name} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY`);
  await onServer(database.url, ...enable);
  await expect(migrate({ databaseUrl: owner.url })).rejects.toMatchObject({
    code: "schema_missing",
    remedy: expect.stringMatching(/^Run `hawser init`/),
  });
  expect(await findingsOf(owner.url)).toMatchObject([
    { check: "version", remedy: expect.stringContaining("DISABLE ROW LEVEL SECURITY") },
  ]);
  await install({ databaseUrl: owner.url, nats: false });
  expect(await findingsOf(owner.url)).toEqual([]);
  await migrate({ databaseUrl: owner.url });
});
