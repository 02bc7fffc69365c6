/**
 * A system that is well, and faults of its database, seeded one at a time: each is named, with what to do, and nothing
 * else is.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { doctor } from "../../src/operating/doctor/index.js";
import { install } from "../../src/operating/installation/index.js";
import type { OwnPostgres } from "../faults/support/own-postgres.js";
import { onServer } from "../support/on-server.js";
import { startPooler } from "../support/pooler.js";
import {
  expectFault,
  type Fault,
  onlyFinding,
  postgresWithPasswords,
  type System,
  startSystem,
} from "./support/system.js";

let postgres: OwnPostgres;
/** Served. Each test leaves it well. */
let system: System;

beforeAll(async () => {
  postgres = await postgresWithPasswords();
  system = await startSystem(postgres);
});
afterAll(async () => {
  await system?.[Symbol.asyncDispose]();
  await postgres?.[Symbol.asyncDispose]();
});

function changed(url: string, change: (url: URL) => void): string {
  const copy = new URL(url);
  change(copy);
  return copy.href;
}

const reinstall = ({ superuserUrl }: System) => install({ databaseUrl: superuserUrl });

describe("a healthy system", () => {
  it("is found to be one, with a subscription and a responder", async () => {
    await using other = await startSystem(postgres);
    await other.run(
      "CREATE FUNCTION public.take(bytea) RETURNS void LANGUAGE sql AS ''",
      "CREATE FUNCTION public.answer(bytea) RETURNS bytea LANGUAGE sql AS 'SELECT $1'",
      `SELECT nats_subscribe('doctor.${other.name}', 'public.take'::regproc)`,
      `SELECT litmus_pgnats_register_responder('doctor.${other.name}.ask', 'public.answer'::regproc)`,
    );
    await other.led();
    for (const databaseUrl of [other.url, other.superuserUrl]) {
      const report = await other.examine({ databaseUrl });
      expect(report.findings).toEqual([]);
      expect(report.checks.filter(({ outcome, why }) => outcome !== "ok" || why !== undefined)).toEqual([]);
      expect(report.ok).toBe(true);
    }
  });

  it("is one for a login that may look at little, which is told what it could not see", async () => {
    const { login } = system;
    await system.run(`REVOKE hawser_nats, hawser_peer FROM ${login}`);
    const report = await system.examine();
    expect(report.findings).toEqual([]);
    const unseen = report.checks.filter(({ why }) => why !== undefined);
    expect(unseen.map(({ check }) => check)).toEqual(["gateway"]);
    expect(unseen[0]!.why).toContain(`GRANT hawser_nats TO "${login}"`);
    await system.run(`REVOKE hawser_bridge FROM ${login}`, `GRANT hawser_nats TO ${login}`);
    expect((await system.examine()).findings).toEqual([]);
    await system.run(`REVOKE hawser_nats FROM ${login}`, `GRANT hawser_peer TO ${login}`);
    expect((await system.examine()).findings).toEqual([]);
    await system.run(`GRANT hawser_bridge, hawser_nats TO ${login}`);
  });

  it("may be for peers alone", async () => {
    await onServer(postgres.url, "CREATE DATABASE doctor_peers");
    const databaseUrl = changed(postgres.url, (url) => {
      url.pathname = "/doctor_peers";
    });
    // As it is since Postgres 15.
    await onServer(databaseUrl, "REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    await install({ databaseUrl, nats: false });
    const report = await doctor({ databaseUrl, secretsDirectories: [] });
    expect(report.findings).toEqual([]);
    expect(report.checks.find(({ check }) => check === "dblink")).toMatchObject({
      outcome: "not_checked",
      why: "nats-from-sql: there is none",
    });
  });

  it("may not be used yet, which is noted", async () => {
    await using unused = await startSystem(postgres, { serve: false, natsOptions: false });
    const report = await unused.examine();
    expect(report.ok).toBe(true);
    expect(report.findings).toMatchObject([
      { check: "nats-server", severity: "note", what: expect.stringContaining("not used") },
    ]);
  });
});

it("a partial installation: what is missing is an error, and it is not said to be installed and unused", async () => {
  await onServer(
    postgres.url,
    "CREATE ROLE doctor_limited LOGIN PASSWORD 'limited'",
    "CREATE DATABASE doctor_partial OWNER doctor_limited",
  );
  const databaseUrl = changed(postgres.url, (url) => {
    Object.assign(url, { username: "doctor_limited", password: "limited", pathname: "/doctor_partial" });
  });
  expect(await install({ databaseUrl })).toMatchObject({ partial: true });
  const { findings } = await doctor({ databaseUrl, secretsDirectories: [] });
  expect(findings).toContainEqual(expect.objectContaining({ check: "dblink", severity: "error" }));
  expect(findings.filter(({ check }) => check === "nats-server")).toEqual([]);
});

describe("the connection to Postgres", () => {
  it("a wrong password, which is not shown; all other checks are not made, and say why", async () => {
    const databaseUrl = changed(system.url, (url) => {
      url.password = "s3cret-wrong";
    });
    const report = await system.examine({ databaseUrl });
    const finding = onlyFinding(report);
    expect(finding).toMatchObject({ check: "database", severity: "error", code: "store_failed" });
    expect(finding.what).toContain(`refused the password of the login "${system.login}"`);
    expect(finding.remedy).toContain(`ALTER ROLE "${system.login}" PASSWORD`);
    expect(JSON.stringify(report)).not.toContain("s3cret-wrong");
    expect(report.checks[1]).toMatchObject({ check: "schema", outcome: "not_checked", why: "it needs database" });
    expect(report.checks.slice(1).every(({ outcome }) => outcome === "not_checked")).toBe(true);
  });

  it.each<[string, (url: URL) => void, Fault["finding"]]>([
    [
      "no password",
      (url) => {
        url.password = "";
      },
      { what: expect.stringContaining("and none was given") },
    ],
    [
      "no such database",
      (url) => {
        url.pathname = "/nowhere";
      },
      {
        what: expect.stringContaining('has no database "nowhere"'),
        remedy: expect.stringContaining('CREATE DATABASE "nowhere"'),
      },
    ],
    [
      "nothing that listens",
      (url) => {
        url.port = "1";
      },
      { what: expect.stringContaining("nothing listens at 127.0.0.1:1") },
    ],
  ])("%s", async (_fault, change, finding) => {
    expect(onlyFinding(await system.examine({ databaseUrl: changed(system.url, change) }))).toMatchObject(finding);
  });

  it("a database that the login may not connect to", async () => {
    await system.run(`REVOKE CONNECT ON DATABASE ${system.name} FROM PUBLIC`);
    const finding = onlyFinding(await system.examine());
    expect(finding.remedy).toBe(`GRANT CONNECT ON DATABASE "${system.name}" TO "${system.login}"`);
    await system.run(`GRANT CONNECT ON DATABASE ${system.name} TO PUBLIC`);
  });

  it("several hosts, none of which is of use, with the reason of each", async () => {
    const { host, hostname, port, searchParams } = new URL(system.url);
    const severalHosts = (hosts: string, attributes: string) => {
      const parameters = new URLSearchParams(searchParams);
      parameters.set("target_session_attrs", attributes);
      return `${system.url.split("?")[0]!.replace(`@${host}/`, `@${hosts}/`)}?${parameters}`;
    };
    const databaseUrl = severalHosts(`127.0.0.1:1,${host}`, "standby");
    const finding = onlyFinding(await system.examine({ databaseUrl }));
    expect(finding).toMatchObject({ check: "database", code: "store_failed" });
    expect(finding.what).toContain("connect ECONNREFUSED 127.0.0.1:1; ");
    expect(finding.what).toContain(`the server ${hostname}:${port} is a primary; the address requires standby`);
    expect(finding.what).not.toContain("nothing listens");
    expect(finding.remedy).toContain("target_session_attrs");
    const nowhere = severalHosts("127.0.0.1:1,127.0.0.1:2", "any");
    expect(onlyFinding(await system.examine({ databaseUrl: nowhere })).what).toBe(
      "nothing listens at 127.0.0.1:1, 127.0.0.1:2, where Postgres should be",
    );
  });

  it("a transaction pooler, with what does not work through one, and what to do", async () => {
    await using pooler = await startPooler(system.url, "transaction");
    const finding = onlyFinding(await system.examine({ databaseUrl: pooler.url }));
    expect(finding).toMatchObject({ check: "database", severity: "error", code: "transaction_pooler" });
    expect(finding.what).toContain("a transaction pooler is in front of Postgres: notifications, ");
    expect(finding.remedy).toContain("Give the address of Postgres itself with --database-url");
  });

  it("a database without the schema", async () => {
    const databaseUrl = changed(system.superuserUrl, (url) => {
      url.pathname = "/template1";
    });
    expect(onlyFinding(await system.examine({ databaseUrl }))).toMatchObject({
      check: "schema",
      code: "schema_missing",
      remedy: expect.stringContaining("hawser init"),
    });
  });
});

const containing = (text: string) => expect.stringContaining(text);

const faults: readonly Fault[] = [
  {
    fault: "a login that is in no role of Hawser",
    seed: ({ login }) => [`REVOKE hawser_bridge, hawser_nats, hawser_peer FROM ${login}`],
    finding: { check: "login", code: "not_permitted", remedy: containing('GRANT hawser_bridge TO "bridge_') },
    undo: ({ login }) => [`GRANT hawser_bridge, hawser_nats, hawser_peer TO ${login}`],
  },
  {
    fault: "a schema older than the program",
    seed: ["CREATE TABLE saved AS TABLE hawser_data.migrations", "DELETE FROM hawser_data.migrations"],
    finding: {
      ...{ check: "version", code: "schema_missing", what: containing("older than this program") },
      remedy: 'Run `hawser init` as its owner, "hawser_owner"',
    },
    undo: ["INSERT INTO hawser_data.migrations SELECT * FROM saved", "DROP TABLE saved"],
  },
  {
    fault: "a schema newer than the program",
    seed: ["INSERT INTO hawser_data.migrations (id, name, checksum, oldest_program) VALUES (99, 'later', 'x', 99)"],
    finding: {
      ...{ check: "version", code: "schema_too_new", what: containing("99 (later)") },
      remedy: "Upgrade the program.",
    },
    undo: ["DELETE FROM hawser_data.migrations WHERE id = 99"],
  },
  {
    fault: "a function that was dropped",
    seed: ["ALTER FUNCTION hawser.retry_dead_letters(bigint[]) RENAME TO retry"],
    finding: {
      ...{ check: "schema-objects", severity: "error", code: "schema_missing" },
      what: containing("the function hawser.retry_dead_letters(bigint[]) is missing"),
      remedy: containing("Run `hawser init`"),
    },
    undo: ["ALTER FUNCTION hawser.retry(bigint[]) RENAME TO retry_dead_letters"],
  },
  {
    fault: "a table that was renamed",
    seed: ["ALTER TABLE hawser_peer_data.routes RENAME TO other_routes"],
    finding: {
      ...{ check: "schema-objects", severity: "error", code: "schema_missing" },
      what: containing("the table hawser_peer_data.routes is missing"),
      remedy: containing("ALTER TABLE hawser_peer_data.other_routes RENAME TO routes;"),
    },
    undo: ["ALTER TABLE hawser_peer_data.other_routes RENAME TO routes"],
  },
  {
    fault: "an index that was dropped",
    seed: ["ALTER INDEX hawser_data.dead_letters_created_at RENAME TO other"],
    finding: {
      ...{ check: "schema-objects", severity: "warning" },
      remedy: "CREATE INDEX CONCURRENTLY dead_letters_created_at ON hawser_data.dead_letters (created_at)",
    },
    undo: ["ALTER INDEX hawser_data.other RENAME TO dead_letters_created_at"],
  },
  {
    fault: "a table of migrations that was renamed",
    seed: ["ALTER TABLE hawser_data.migrations RENAME TO steps"],
    finding: {
      ...{ check: "schema", severity: "error", code: "schema_missing" },
      remedy: containing("RENAME TO migrations"),
    },
    undo: ["ALTER TABLE hawser_data.steps RENAME TO migrations"],
  },
  {
    fault: "a grant that is missing",
    seed: ["REVOKE EXECUTE ON FUNCTION nats_flush() FROM hawser_nats"],
    finding: {
      ...{ check: "grants", severity: "error", code: "not_permitted" },
      what: containing("hawser_nats lacks EXECUTE on function"),
      remedy: containing("nats_flush() TO hawser_nats"),
    },
  },
  {
    fault: "a grant that is missing, which the bridge needs",
    seed: ["REVOKE SELECT ON hawser_bridge_data.nats_server FROM hawser_bridge"],
    finding: { remedy: containing("GRANT SELECT ON TABLE hawser_bridge_data.nats_server TO hawser_bridge") },
  },
  {
    fault: "a grant that Hawser has not given",
    seed: ["GRANT SELECT ON hawser_bridge_data.gateway_secret TO pg_monitor"],
    finding: {
      ...{ check: "excess-privileges", severity: "warning" },
      remedy: expect.stringMatching(/^REVOKE SELECT ON TABLE hawser_bridge_data\.gateway_secret FROM "?pg_monitor"?$/),
    },
  },
  {
    fault: "a grant to PUBLIC, which subscribed functions could use",
    seed: ["GRANT SELECT ON hawser_bridge_data.gateway_secret TO PUBLIC"],
    finding: {
      ...{ check: "excess-privileges", severity: "error", code: "executor_login" },
      remedy: "REVOKE SELECT ON TABLE hawser_bridge_data.gateway_secret FROM PUBLIC",
    },
  },
  {
    fault: "a role for grants alone that can do more",
    seed: ["ALTER ROLE hawser_peer CREATEDB"],
    finding: { check: "roles", severity: "warning", remedy: "ALTER ROLE hawser_peer NOCREATEDB" },
  },
  {
    fault: "a schema on the path of the login in which everybody may create",
    seed: ["GRANT CREATE ON SCHEMA public TO PUBLIC"],
    finding: {
      ...{ check: "roles", severity: "warning", what: containing('on the search_path of "bridge_') },
      remedy: 'REVOKE CREATE ON SCHEMA "public" FROM PUBLIC',
    },
    undo: ["REVOKE CREATE ON SCHEMA public FROM PUBLIC"],
  },
  {
    fault: "whoever may act as the owner, which is only noted: it is whom an installation needs",
    seed: ["CREATE ROLE doctor_member IN ROLE hawser_owner"],
    finding: { check: "roles", severity: "note" },
    undo: ["DROP ROLE doctor_member"],
  },
  {
    fault: "dblink that the owner of the functions may not use",
    seed: ["REVOKE USAGE ON SCHEMA hawser_dblink FROM hawser_owner"],
    finding: { check: "dblink", code: "not_permitted" },
  },
  {
    fault: "dblink that every role may use",
    seed: [
      "GRANT USAGE ON SCHEMA hawser_dblink TO PUBLIC",
      "GRANT EXECUTE ON FUNCTION hawser_dblink.dblink(text, text) TO PUBLIC",
    ],
    finding: { check: "dblink", severity: "warning" },
    undo: [
      "REVOKE USAGE ON SCHEMA hawser_dblink FROM PUBLIC",
      "REVOKE EXECUTE ON FUNCTION hawser_dblink.dblink(text, text) FROM PUBLIC",
    ],
  },
  {
    fault: "an SQL function that was dropped",
    seed: ["DROP FUNCTION nats_get_text(text, text, text)"],
    finding: {
      ...{ check: "functions", severity: "error", remedy: containing("hawser init") },
      what: "the SQL function nats_get_text(text, text, text) is missing",
    },
    undo: reinstall,
  },
  {
    fault: "SQL functions of another version, by both versions",
    seed: [
      `DO $do$ BEGIN EXECUTE (SELECT replace(pg_get_functiondef(p.oid), 'SELECT ''', 'SELECT ''0.0.1-')
         FROM pg_proc AS p WHERE p.proname = 'litmus_pgnats_version'); END $do$`,
    ],
    finding: {
      ...{ check: "functions", severity: "warning" },
      what: expect.stringMatching(
        /^the SQL function litmus_pgnats_version\(\) is of version 0\.0\.1-\S+, and this program is version \d+\.\d+\.\d+/,
      ),
      // To make those of an older program would undo an upgrade.
      remedy: containing("`hawser init` of the newer version"),
    },
    undo: reinstall,
  },
  {
    fault: "an event trigger that is disabled",
    seed: ["ALTER EVENT TRIGGER hawser_nats_server_follow DISABLE"],
    finding: { check: "foreign-data", severity: "warning" },
  },
  {
    fault: "an event trigger that was dropped",
    seed: ["DROP EVENT TRIGGER hawser_nats_server_follow"],
    finding: { check: "foreign-data", severity: "note" },
    undo: reinstall,
  },
  {
    fault: "messages that wait for long for a peer",
    seed: [
      `INSERT INTO hawser_peer_data.channels (channel_name, channel_id) VALUES ('a:b:orders-1', 7)`,
      `INSERT INTO hawser_peer_data.topics (topic, id) VALUES ('orders', 3)`,
      `INSERT INTO hawser_peer_data.peers (name, epoch) VALUES ('orders-1', 1)`,
      `INSERT INTO hawser_peer_data.stored_messages (channel_id, epoch, number, topic_id, payload, stored_at)
       VALUES (7, 1, 1, 3, '', now() - interval '5 h'), (7, 1, 2, 3, '', now())`,
    ],
    finding: {
      ...{ check: "stored-messages", severity: "error" },
      what: '2 messages wait for "orders-1", the oldest for 5 h, and it does not run',
      remedy: containing("hawser peers reassign orders-1"),
    },
    undo: [
      "DELETE FROM hawser_peer_data.stored_messages",
      "DELETE FROM hawser_peer_data.peers WHERE name = 'orders-1'",
    ],
  },
];

it.each(faults.map((each) => [each.fault, each] as const))("finds %s", async (_, fault) => {
  await expectFault(system, fault);
});

it("finds a privilege on another schema beside the one on that of dblink, which the check of dblink tells", async () => {
  await system.run(
    "CREATE ROLE doctor_user",
    "GRANT USAGE ON SCHEMA hawser_dblink, hawser_run TO doctor_user",
    "GRANT EXECUTE ON FUNCTION hawser_dblink.dblink(text, text) TO doctor_user",
  );
  const { findings } = await system.examine();
  await system.run("DROP OWNED BY doctor_user", "DROP ROLE doctor_user");
  expect(findings.map(({ check }) => check)).toEqual(["excess-privileges", "dblink"]);
  expect(findings[0]!.remedy).toContain("hawser_run");
});

it("finds what hawser_executor may do too much, also for a login that may not read which login is in it", async () => {
  const { login } = system;
  await system.run("GRANT pg_monitor TO hawser_executor", `REVOKE hawser_bridge FROM ${login}`);
  const report = await system.examine();
  await system.run("REVOKE pg_monitor FROM hawser_executor", `GRANT hawser_bridge TO ${login}`);
  expect(onlyFinding(report)).toMatchObject({
    check: "roles",
    remedy: 'REVOKE "pg_monitor" FROM "hawser_executor"',
  });
});

it("finds functions whose owner lacks what they need, also where some are of another version", async () => {
  await system.run(
    "CREATE ROLE doctor_owner NOINHERIT IN ROLE hawser_owner",
    "GRANT USAGE ON SCHEMA hawser_dblink TO doctor_owner",
    "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA hawser_dblink TO doctor_owner",
    "ALTER FUNCTION nats_flush() OWNER TO doctor_owner",
    `DO $do$ BEGIN EXECUTE (SELECT replace(pg_get_functiondef(p.oid), 'SELECT ''', 'SELECT ''0.0.1-')
       FROM pg_proc AS p WHERE p.proname = 'litmus_pgnats_version'); END $do$`,
  );
  const { findings } = await system.examine();
  await reinstall(system);
  await system.run(
    "REASSIGN OWNED BY doctor_owner TO hawser_owner",
    "DROP OWNED BY doctor_owner",
    "DROP ROLE doctor_owner",
  );
  expect(findings).toContainEqual(
    expect.objectContaining({
      check: "functions",
      what: containing('"doctor_owner", whom SQL functions belong to, lacks'),
    }),
  );
});

it("finds that dblink is missing, with statements that bring it back", async () => {
  await system.run("DROP EXTENSION dblink");
  const finding = onlyFinding(await system.examine());
  expect(finding).toMatchObject({ check: "dblink", severity: "error", code: "not_supported" });
  expect(finding.what).toContain("dblink is not installed");
  expect(finding.remedy).toContain("CREATE EXTENSION dblink SCHEMA hawser_dblink");
  await system.run(/: (.*); then run/.exec(finding.remedy)![1]!);
  await reinstall(system);
  expect((await system.examine()).findings).toEqual([]);
});

it("counts messages that were given up, without what is in them", async () => {
  await system.run(
    `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, created_at)
     SELECT 'subscription', 'public.take(bytea)', 'a.b', 'top secret', 'function_failed', 'no', 1, now() - interval '3 h' FROM generate_series(1, 2)`,
  );
  const report = await system.examine();
  expect(onlyFinding(report)).toMatchObject({
    check: "dead-letters",
    severity: "warning",
    what: "2 messages of subscriptions were dead-lettered, the oldest 3 h ago, most with function_failed",
    remedy: containing("hawser dead list --origin subscription"),
  });
  expect(JSON.stringify(report)).not.toContain("top secret");
  expect(report.checks.find(({ check }) => check === "dead-letters")!.seen).toBeUndefined();
  await system.run("DELETE FROM hawser_data.dead_letters");
});
