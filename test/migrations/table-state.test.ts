/**
 * What others can do to Hawser's tables without touching a column: which of it `hawser doctor` names, `hawser init`
 * repairs, and peers refuse at their start. `table-state.slow.test.ts` has more of what happens beside event triggers.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { migrate } from "../../src/jobs-and-peers/migrations/index.js";
import { Peer } from "../../src/jobs-and-peers/peer/index.js";
import { serve } from "../../src/nats/serve/index.js";
import { install } from "../../src/operating/installation/index.js";
import { login } from "../installation/support/logins.js";
import { enabling, findingsOf, objectsSql, securedSql } from "../store/support/table-state.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { onServer, rowsOf } from "../support/on-server.js";

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
    change: "ALTER TABLE hawser_peer_data.stored_messages ENABLE ROW LEVEL SECURITY",
    what: "the table hawser_peer_data.stored_messages: it has row security",
    statement: "ALTER TABLE hawser_peer_data.stored_messages DISABLE ROW LEVEL SECURITY",
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
    change: "ALTER TABLE hawser_peer_data.topics FORCE ROW LEVEL SECURITY",
    what: "the table hawser_peer_data.topics: it would force row security on its owner",
    statement: "ALTER TABLE hawser_peer_data.topics NO FORCE ROW LEVEL SECURITY",
    severity: "warning",
    repaired: true,
  },
  {
    change: "CREATE POLICY mine ON hawser_peer_data.topics USING (true)",
    what: "the policy mine of hawser_peer_data.topics: it is not Hawser's",
    statement: "DROP POLICY mine ON hawser_peer_data.topics",
    severity: "warning",
  },
  {
    change: "CREATE RULE mine AS ON DELETE TO hawser_peer_data.routes DO ALSO NOTHING",
    what: "the rule mine of hawser_peer_data.routes: it is not Hawser's, and rewrites its statements",
    statement: "DROP RULE mine ON hawser_peer_data.routes",
    severity: "error",
  },
  {
    change:
      "CREATE TRIGGER mine BEFORE INSERT ON hawser_peer_data.stored_messages FOR EACH ROW EXECUTE FUNCTION public.nothing()",
    what: "the trigger mine of hawser_peer_data.stored_messages: it is not Hawser's, and can change or drop each row",
    statement: "DROP TRIGGER mine ON hawser_peer_data.stored_messages",
    severity: "error",
  },
  {
    change:
      "CREATE TRIGGER mine AFTER INSERT ON hawser_peer_data.cursors FOR EACH ROW EXECUTE FUNCTION public.nothing()",
    what: "the trigger mine of hawser_peer_data.cursors: it is not Hawser's, and runs in its transactions",
    statement: "DROP TRIGGER mine ON hawser_peer_data.cursors",
    severity: "warning",
  },
  {
    change: "ALTER TABLE hawser_bridge_data.saved_messages SET UNLOGGED",
    what: "the table hawser_bridge_data.saved_messages: it is UNLOGGED, and empty after a crash of Postgres",
    statement: "ALTER TABLE hawser_bridge_data.saved_messages SET LOGGED",
    severity: "error",
    repaired: true,
  },
  {
    change: "ALTER SEQUENCE hawser_bridge_data.nats_handlers_id_seq SET UNLOGGED",
    what: "the sequence hawser_bridge_data.nats_handlers_id_seq: it is UNLOGGED, and empty after a crash of Postgres",
    statement: "ALTER SEQUENCE hawser_bridge_data.nats_handlers_id_seq SET LOGGED",
    severity: "error",
    repaired: true,
  },
  {
    change: "CREATE TABLE public.child () INHERITS (hawser_peer_data.stored_messages)",
    what: "the table hawser_peer_data.stored_messages: it has the child public.child, whose rows are not Hawser's",
    statement: "ALTER TABLE public.child NO INHERIT hawser_peer_data.stored_messages",
    severity: "error",
  },
  {
    change: "ALTER TABLE hawser_data.outbox DETACH PARTITION hawser_data.outbox_1",
    what: "the table hawser_data.outbox_1: it is not a partition of hawser_data.outbox",
    statement: "ALTER TABLE hawser_data.outbox ATTACH PARTITION hawser_data.outbox_1 FOR VALUES IN (1)",
    severity: "error",
  },
  {
    change: "ALTER TABLE hawser_peer_data.peers ALTER COLUMN name TYPE text COLLATE public.ci",
    what: "the column name of hawser_peer_data.peers: it has the collation public.ci, with which different names and keys are equal",
    statement: 'ALTER TABLE hawser_peer_data.peers ALTER COLUMN name TYPE text COLLATE pg_catalog."default"',
    severity: "error",
  },
  {
    change: 'ALTER TABLE hawser_peer_data.peers ALTER COLUMN token TYPE text COLLATE "C"',
    what: 'the column token of hawser_peer_data.peers: it has the collation "C"',
    statement: 'ALTER TABLE hawser_peer_data.peers ALTER COLUMN token TYPE text COLLATE pg_catalog."default"',
    severity: "warning",
  },
  {
    change: "ALTER TABLE hawser_peer_data.peers REPLICA IDENTITY NOTHING",
    what: "the table hawser_peer_data.peers: it has no replica identity, so that a publication makes its updates fail",
    statement: "ALTER TABLE hawser_peer_data.peers REPLICA IDENTITY DEFAULT",
    severity: "warning",
  },
  {
    // One who is not trusted is refused: see planted.slow.test.ts.
    change: "ALTER TABLE hawser_peer_data.peers OWNER TO CURRENT_USER",
    what: "the table hawser_peer_data.peers: it belongs to ",
    statement: "ALTER TABLE hawser_peer_data.peers OWNER TO hawser_owner",
    severity: "warning",
    repaired: true,
  },
  {
    change: "ALTER TABLE hawser_peer_data.peers ADD CONSTRAINT mine CHECK (name <> 'a')",
    what: "the constraint mine of hawser_peer_data.peers: it is not Hawser's",
    statement: 'ALTER TABLE hawser_peer_data.peers DROP CONSTRAINT "mine"',
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
    "CREATE TRIGGER mine BEFORE INSERT ON hawser_peer_data.peers FOR EACH ROW EXECUTE FUNCTION public.nothing()",
    "ALTER TABLE hawser_peer_data.peers ENABLE REPLICA TRIGGER mine, REPLICA IDENTITY FULL",
    "CREATE RULE mine AS ON INSERT TO hawser_peer_data.id_counter DO INSTEAD NOTHING",
    "ALTER TABLE hawser_peer_data.id_counter ENABLE REPLICA RULE mine",
    "CREATE UNLOGGED SEQUENCE hawser.mine",
  );
  expect(await findingsOf(database.url)).toEqual([]);
  await migrate({ databaseUrl: database.url });
});

it("a peer and hawser serve do not start with what can lose messages, and start again after the repair", async () => {
  await using database = await testDatabase();
  const { url: databaseUrl } = database;
  const peer = new Peer({ name: "app", databaseUrl });
  const starts = [() => peer.start(), () => serve({ databaseUrl, listen: "127.0.0.1:0" })];
  await onServer(databaseUrl, "ALTER TABLE hawser_peer_data.stored_messages SET UNLOGGED");
  for (const start of starts) {
    await expect(start()).rejects.toMatchObject({
      code: "schema_missing",
      message: expect.stringMatching(
        /messages could get lost: the table hawser_peer_data\.stored_messages: it is UNLOGGED/,
      ),
      remedy: expect.stringContaining("ALTER TABLE hawser_peer_data.stored_messages SET LOGGED"),
    });
  }
  await install({ databaseUrl });
  await peer.start();
  await peer.stop();
  await (await serve({ databaseUrl, listen: "127.0.0.1:0" })).stop();
});

it("the first installation leaves nothing where an event trigger undoes its tables, and names it; where it may, its tables have no row security", async () => {
  await using database = await testDatabase({ migrated: false });
  const empty = await rowsOf(database.url, objectsSql);
  await onServer(database.url, ...enabling("'CREATE TABLE', 'ALTER TABLE'"));
  await expect(migrate({ databaseUrl: database.url })).rejects.toMatchObject({
    code: "schema_missing",
    message: expect.stringMatching(
      /the event trigger secure \(public\.secure\(\)\).*ALTER EVENT TRIGGER secure DISABLE/,
    ),
  });
  await onServer(database.url, "DROP FUNCTION public.secure() CASCADE");
  expect(await rowsOf(database.url, objectsSql)).toEqual(empty);
  await onServer(database.url, ...enabling("'CREATE TABLE'"));
  await migrate({ databaseUrl: database.url });
  expect(await rowsOf(database.url, securedSql)).toEqual([]);
});
