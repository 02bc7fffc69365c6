/**
 * What others can do to Hawser's tables without touching a column: which of it `hawser doctor` names, `hawser init`
 * repairs, and peers refuse at their start.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { doctor } from "../../src/doctor/index.js";
import { install } from "../../src/installation/index.js";
import { Peer } from "../../src/peer/index.js";
import { serve } from "../../src/serve/index.js";
import { migrate } from "../../src/store/index.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { login } from "./nats/support/logins.js";

/** Findings about the schema: others depend on what else runs on this server, such as roles of other tests. */
const findingsOf = async (databaseUrl: string) =>
  (await doctor({ databaseUrl, secretsDirectories: [] })).findings.filter(
    ({ check, severity }) => ["schema-objects", "version"].includes(check) && severity !== "note",
  );

const nothing = "CREATE FUNCTION public.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'";
const nondeterministic =
  "CREATE COLLATION public.ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)";

interface Case {
  readonly change: string;
  /** The object and, behind ": it ", its state. */
  readonly what: string;
  /** Repairs it. */
  readonly statement: string;
  /** An error keeps peers from starting. */
  readonly severity: "error" | "warning";
  /** True if `hawser init` repairs it. */
  readonly repaired?: boolean;
}

/** Each on an object of its own, or of its own kind: all of them can be made in one database. */
const cases: readonly Case[] = [
  {
    change: "ALTER TABLE hawser_data.stored_messages ENABLE ROW LEVEL SECURITY",
    what: "the table hawser_data.stored_messages: it has row security",
    statement: "ALTER TABLE hawser_data.stored_messages DISABLE ROW LEVEL SECURITY",
    severity: "error",
    repaired: true,
  },
  {
    change: "ALTER TABLE hawser_data.dead_letters ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    what: "the table hawser_data.dead_letters: it has row security, forced on its owner too",
    statement: "ALTER TABLE hawser_data.dead_letters DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY",
    severity: "error",
    repaired: true,
  },
  {
    change: "ALTER TABLE hawser_data.topics FORCE ROW LEVEL SECURITY",
    what: "the table hawser_data.topics: it would force row security on its owner",
    statement: "ALTER TABLE hawser_data.topics NO FORCE ROW LEVEL SECURITY",
    severity: "warning",
    repaired: true,
  },
  {
    change: "CREATE POLICY mine ON hawser_data.topics USING (true)",
    what: "the policy mine of hawser_data.topics: it is not Hawser's",
    statement: "DROP POLICY mine ON hawser_data.topics",
    severity: "warning",
  },
  {
    change: "CREATE RULE mine AS ON DELETE TO hawser_data.parked_messages DO ALSO NOTHING",
    what: "the rule mine of hawser_data.parked_messages: it is not Hawser's, and rewrites its statements",
    statement: "DROP RULE mine ON hawser_data.parked_messages",
    severity: "error",
  },
  {
    change:
      "CREATE TRIGGER mine BEFORE INSERT ON hawser_data.stored_messages FOR EACH ROW EXECUTE FUNCTION public.nothing()",
    what: "the trigger mine of hawser_data.stored_messages: it is not Hawser's, and can change or drop each row",
    statement: "DROP TRIGGER mine ON hawser_data.stored_messages",
    severity: "error",
  },
  {
    change: "CREATE TRIGGER mine AFTER INSERT ON hawser_data.marks FOR EACH ROW EXECUTE FUNCTION public.nothing()",
    what: "the trigger mine of hawser_data.marks: it is not Hawser's, and runs in its transactions",
    statement: "DROP TRIGGER mine ON hawser_data.marks",
    severity: "warning",
  },
  {
    change: "ALTER TABLE hawser_data.saved_messages SET UNLOGGED",
    what: "the table hawser_data.saved_messages: it is UNLOGGED, and empty after a crash of Postgres",
    statement: "ALTER TABLE hawser_data.saved_messages SET LOGGED",
    severity: "error",
    repaired: true,
  },
  {
    change: "ALTER SEQUENCE hawser_data.nats_handlers_id_seq SET UNLOGGED",
    what: "the sequence hawser_data.nats_handlers_id_seq: it is UNLOGGED, and empty after a crash of Postgres",
    statement: "ALTER SEQUENCE hawser_data.nats_handlers_id_seq SET LOGGED",
    severity: "error",
    repaired: true,
  },
  {
    change: "CREATE TABLE public.child () INHERITS (hawser_data.stored_messages)",
    what: "the table hawser_data.stored_messages: it has the child public.child, whose rows are not Hawser's",
    statement: "ALTER TABLE public.child NO INHERIT hawser_data.stored_messages",
    severity: "error",
  },
  {
    change: "ALTER TABLE hawser_data.outbox_turns DETACH PARTITION hawser_data.outbox_turns_1",
    what: "the table hawser_data.outbox_turns_1: it is not a partition of hawser_data.outbox_turns",
    statement: "ALTER TABLE hawser_data.outbox_turns ATTACH PARTITION hawser_data.outbox_turns_1 FOR VALUES IN (1)",
    severity: "error",
  },
  {
    change: "ALTER TABLE hawser_data.peers ALTER COLUMN name TYPE text COLLATE public.ci",
    what: "the column name of hawser_data.peers: it has the collation public.ci, with which different names and keys are equal",
    statement: 'ALTER TABLE hawser_data.peers ALTER COLUMN name TYPE text COLLATE pg_catalog."default"',
    severity: "error",
  },
  {
    change: 'ALTER TABLE hawser_data.peers ALTER COLUMN token TYPE text COLLATE "C"',
    what: 'the column token of hawser_data.peers: it has the collation "C"',
    statement: 'ALTER TABLE hawser_data.peers ALTER COLUMN token TYPE text COLLATE pg_catalog."default"',
    severity: "warning",
  },
  {
    change: "ALTER TABLE hawser_data.peers REPLICA IDENTITY NOTHING",
    what: "the table hawser_data.peers: it has no replica identity, so that a publication makes its updates fail",
    statement: "ALTER TABLE hawser_data.peers REPLICA IDENTITY DEFAULT",
    severity: "warning",
  },
  {
    // One who is not trusted is refused: see planted.slow.test.ts.
    change: "ALTER TABLE hawser_data.peers OWNER TO CURRENT_USER",
    what: "the table hawser_data.peers: it belongs to ",
    statement: "ALTER TABLE hawser_data.peers OWNER TO hawser_owner",
    severity: "warning",
    repaired: true,
  },
  {
    change: "ALTER TABLE hawser_data.peers ADD CONSTRAINT mine CHECK (name <> 'a')",
    what: "the constraint mine of hawser_data.peers: it is not Hawser's",
    statement: 'ALTER TABLE hawser_data.peers DROP CONSTRAINT "mine"',
    severity: "warning",
  },
];
const left = cases.filter(({ repaired }) => !repaired);

const isOf = ({ what }: Case, text: string) => what.split(": it ").every((part) => text.includes(part));

describe("a change by others", () => {
  let database: TestDatabase;
  let findings: Awaited<ReturnType<typeof findingsOf>>;
  let plan: string;
  let warnings: readonly string[];
  let findingsAfter: typeof findings;
  beforeAll(async () => {
    database = await testDatabase({ nats: false });
    await onServer(database.url, nothing, nondeterministic, ...cases.map(({ change }) => change));
    findings = await findingsOf(database.url);
    const options = { databaseUrl: database.url, nats: false } as const;
    plan = (await install({ ...options, dryRun: true })).sql!;
    const report = await install(options);
    expect(report.missingPrivileges).toEqual([]);
    ({ warnings } = report);
    findingsAfter = await findingsOf(database.url);
  });
  afterAll(() => database.drop());

  it.each(cases)("$change is named by doctor, with the statement that repairs it", (one) => {
    const finding = findings.find(({ what }) => isOf(one, what));
    expect(finding).toMatchObject({ check: "schema-objects", severity: one.severity });
    expect(finding!.remedy.split("; ")).toContain(one.statement);
  });

  it.each(cases.filter(({ repaired }) => repaired))("$change is repaired by init", (one) => {
    expect(findingsAfter.filter(({ what }) => isOf(one, what))).toEqual([]);
    // The grants set the owners.
    if (!/OWNER TO/.test(one.change)) expect(plan).toContain(one.statement);
  });

  it.each(left)("$change is left to its author by init, which names it", (one) => {
    expect(warnings.find((line) => isOf(one, line))).toContain(one.statement);
    expect(findingsAfter.filter(({ what }) => isOf(one, what))).toHaveLength(1);
  });

  it("is all that is named, and nothing is named after these statements", async () => {
    const named = findings.flatMap(({ remedy }) => remedy.split("; "));
    expect(named.toSorted()).toEqual(cases.map(({ statement }) => statement).toSorted());
    expect([warnings, findingsAfter].map(({ length }) => length)).toEqual([left.length, left.length]);
    await onServer(database.url, ...left.map(({ statement }) => statement));
    expect(await findingsOf(database.url)).toEqual([]);
  });
});

describe("a peer", () => {
  let database: TestDatabase;
  let peer: Awaited<ReturnType<typeof login>>;
  beforeAll(async () => {
    database = await testDatabase({ nats: false });
    peer = await login(database.url);
    await onServer(database.url, `GRANT hawser_peer TO ${peer.role}`, nothing, nondeterministic);
  });
  afterAll(async () => {
    await peer[Symbol.asyncDispose]();
    await database.drop();
  });

  it.each(cases.filter(({ severity }) => severity === "error"))(
    "does not start after $change, until the statement has repaired it",
    async ({ change, what, statement }) => {
      await onServer(database.url, change);
      await expect(migrate({ databaseUrl: peer.url })).rejects.toMatchObject({
        code: "schema_missing",
        message: expect.stringContaining(what),
        remedy: expect.stringContaining(statement),
      });
      await onServer(database.url, statement);
      await migrate({ databaseUrl: peer.url });
    },
  );

  it("starts with all other changes", async () => {
    const harmless = cases.filter(({ severity }) => severity === "warning");
    await onServer(database.url, ...harmless.map(({ change }) => change));
    await migrate({ databaseUrl: peer.url });
  });
});

it("what does not run in ordinary sessions, and a replica identity for readers of changes, are no differences", async () => {
  await using database = await testDatabase({ nats: false });
  await onServer(
    database.url,
    nothing,
    "CREATE TRIGGER mine BEFORE INSERT ON hawser_data.peers FOR EACH ROW EXECUTE FUNCTION public.nothing()",
    "ALTER TABLE hawser_data.peers ENABLE REPLICA TRIGGER mine, REPLICA IDENTITY FULL",
    "CREATE RULE mine AS ON INSERT TO hawser_data.id_counter DO INSTEAD NOTHING",
    "ALTER TABLE hawser_data.id_counter ENABLE REPLICA RULE mine",
    "CREATE UNLOGGED SEQUENCE hawser.mine",
  );
  expect(await findingsOf(database.url)).toEqual([]);
  await migrate({ databaseUrl: database.url });
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

it("a peer and hawser serve do not start with what can lose messages, and start again after the repair", async () => {
  await using database = await testDatabase();
  const { url: databaseUrl } = database;
  const peer = new Peer({ name: "app", databaseUrl });
  const starts = [() => peer.start(), () => serve({ databaseUrl, listen: "127.0.0.1:0" })];
  await onServer(databaseUrl, "ALTER TABLE hawser_data.stored_messages SET UNLOGGED");
  for (const start of starts) {
    await expect(start()).rejects.toMatchObject({
      code: "schema_missing",
      message: expect.stringMatching(/messages could get lost: the table hawser_data\.stored_messages: it is UNLOGGED/),
      remedy: expect.stringContaining("ALTER TABLE hawser_data.stored_messages SET LOGGED"),
    });
  }
  await install({ databaseUrl });
  await peer.start();
  await peer.stop();
  await (await serve({ databaseUrl, listen: "127.0.0.1:0" })).stop();
});

/** Everything that an installation could leave behind. */
const objectsSql = `
  SELECT 'relation' AS kind, oid::regclass::text AS name FROM pg_class
  UNION ALL SELECT 'function', oid::regprocedure::text FROM pg_proc
  UNION ALL SELECT 'schema', nspname FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp'
  UNION ALL SELECT 'extension', extname FROM pg_extension
  UNION ALL SELECT 'wrapper', fdwname FROM pg_foreign_data_wrapper
  UNION ALL SELECT 'event trigger', evtname FROM pg_event_trigger
  ORDER BY 1, 2`;

const enabling = (tags: string) => [
  `CREATE FUNCTION public.secure() RETURNS event_trigger LANGUAGE plpgsql AS $$
   DECLARE t record;
   BEGIN
     FOR t IN SELECT d.objid, d.object_identity FROM pg_event_trigger_ddl_commands() AS d WHERE d.object_type = 'table'
     LOOP
       IF NOT (SELECT c.relrowsecurity FROM pg_class AS c WHERE c.oid = t.objid) THEN
         EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', t.object_identity);
       END IF;
     END LOOP;
   END $$`,
  `CREATE EVENT TRIGGER secure ON ddl_command_end WHEN TAG IN (${tags}) EXECUTE FUNCTION public.secure()`,
];

/** Fails for the nth command with a tag, within the session of the installation. */
const failing = (tag: string, nth: number) => [
  "CREATE SEQUENCE public.commands",
  `CREATE FUNCTION public.refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$
   BEGIN
     IF nextval('public.commands') >= ${nth} THEN RAISE 'no more %', tg_tag; END IF;
   END $$`,
  `CREATE EVENT TRIGGER refuse ON ddl_command_end WHEN TAG IN ('${tag}') EXECUTE FUNCTION public.refuse()`,
];

/** Runs what a dry run has printed. */
async function runPlan(databaseUrl: string): Promise<void> {
  await onServer(databaseUrl, (await install({ databaseUrl, dryRun: true })).sql!);
}

const securedSql =
  "SELECT relname FROM pg_class WHERE relnamespace IN ('hawser'::regnamespace, 'hawser_data'::regnamespace) AND relrowsecurity";

const installers = [
  ["init", (databaseUrl: string) => install({ databaseUrl })],
  ["the start of a peer", (databaseUrl: string) => migrate({ databaseUrl })],
] as const;

describe.each(installers)("the first installation, by %s,", (by, run) => {
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
    "ALTER TABLE hawser_data.peers ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE hawser_data.topics ENABLE ROW LEVEL SECURITY",
  );
  const init = () => install({ databaseUrl: database.url, nats: false });
  const words = /the event trigger secure \(public\.secure\(\)\).*ALTER EVENT TRIGGER secure DISABLE/;
  expect((await init()).missingPrivileges).toMatchObject([
    { what: expect.stringMatching(words), remedy: expect.stringContaining("ALTER TABLE hawser_data.peers DISABLE") },
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
    "SELECT oid::regclass::text AS name FROM pg_class WHERE relnamespace IN ('hawser'::regnamespace, 'hawser_data'::regnamespace) AND relkind IN ('r', 'p')",
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
