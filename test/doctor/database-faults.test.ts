/**
 * Faults of the database, seeded one at a time: each is named, with what to do, and nothing else is.
 */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { install } from "../../src/store/index.js";
import type { OwnPostgres } from "../faults/support/own-postgres.js";
import { onServer } from "../support/on-server.js";
import { found, onlyFinding, postgresWithPasswords, type System, startSystem } from "./support/system.js";

let postgres: OwnPostgres;

beforeAll(async () => {
  postgres = await postgresWithPasswords();
});

afterAll(async () => {
  await postgres?.[Symbol.asyncDispose]();
});

function changed(url: string, change: (url: URL) => void): string {
  const copy = new URL(url);
  change(copy);
  return copy.href;
}

describe("the connection to Postgres", () => {
  let system: System;

  beforeAll(async () => {
    system = await startSystem(postgres, { serve: false });
  });

  afterAll(async () => {
    await system?.[Symbol.asyncDispose]();
  });

  it("a wrong password, which is not shown", async () => {
    const databaseUrl = changed(system.url, (url) => {
      url.password = "s3cret-wrong";
    });
    const finding = onlyFinding(await system.examine({ databaseUrl }));
    expect(finding).toMatchObject({ check: "database", severity: "error", code: "store_failed" });
    expect(finding.what).toContain(`refused the password of the login "${system.login}"`);
    expect(finding.remedy).toContain(`ALTER ROLE "${system.login}" PASSWORD`);
    expect(JSON.stringify(finding)).not.toContain("s3cret-wrong");
  });

  it("no password", async () => {
    const databaseUrl = changed(system.url, (url) => {
      url.password = "";
    });
    expect(onlyFinding(await system.examine({ databaseUrl })).what).toContain("and none was given");
  });

  it("no such database", async () => {
    const databaseUrl = changed(system.url, (url) => {
      url.pathname = "/nowhere";
    });
    const finding = onlyFinding(await system.examine({ databaseUrl }));
    expect(finding.what).toContain('has no database "nowhere"');
    expect(finding.remedy).toContain('CREATE DATABASE "nowhere"');
  });

  it("a database that the login may not connect to", async () => {
    await system.run(`REVOKE CONNECT ON DATABASE ${system.name} FROM PUBLIC`);
    const finding = onlyFinding(await system.examine());
    expect(finding.remedy).toBe(`GRANT CONNECT ON DATABASE "${system.name}" TO "${system.login}"`);
    await system.run(`GRANT CONNECT ON DATABASE ${system.name} TO PUBLIC`);
  });

  it("nothing that listens", async () => {
    const databaseUrl = changed(system.url, (url) => {
      url.port = "1";
    });
    expect(onlyFinding(await system.examine({ databaseUrl })).what).toContain("nothing listens at 127.0.0.1:1");
  });

  it("a Postgres that does not answer, after a few seconds", async () => {
    const begin = performance.now();
    postgres.freeze();
    try {
      expect(onlyFinding(await system.examine()).what).toContain("did not answer within 5000 ms");
      expect(performance.now() - begin).toBeLessThan(20_000);
    } finally {
      postgres.resume();
    }
  });

  it("says of all other checks that they were not made, and why", async () => {
    const databaseUrl = changed(system.url, (url) => {
      url.password = "wrong";
    });
    const { checks } = await system.examine({ databaseUrl });
    expect(checks[1]).toMatchObject({ check: "schema", outcome: "not_checked", why: "it needs database" });
    expect(checks.slice(1).every(({ outcome }) => outcome === "not_checked")).toBe(true);
  });
});

describe("the schema", () => {
  it("a login that is in no role of Hawser", async () => {
    await using system = await startSystem(postgres);
    await system.run(`REVOKE hawser_bridge, hawser_nats, hawser_peer FROM ${system.login}`);
    const finding = onlyFinding(await system.examine());
    expect(finding).toMatchObject({ check: "login", code: "not_permitted" });
    expect(finding.remedy).toContain(`GRANT hawser_bridge TO "${system.login}"`);
  });

  it("no schema", async () => {
    await onServer(postgres.url, "CREATE DATABASE doctor_empty");
    await using system = await startSystem(postgres, { serve: false });
    const databaseUrl = changed(system.superuserUrl, (url) => {
      url.pathname = "/doctor_empty";
    });
    const finding = onlyFinding(await system.examine({ databaseUrl }));
    expect(finding).toMatchObject({ check: "schema", code: "schema_missing" });
    expect(finding.remedy).toContain("hawser init");
  });

  it("a schema older than the program", async () => {
    await using system = await startSystem(postgres);
    await system.run("DELETE FROM hawser.migrations");
    const finding = onlyFinding(await system.examine());
    expect(finding).toMatchObject({ check: "version", code: "schema_missing" });
    expect(finding.what).toContain("older than this program");
    expect(finding.remedy).toBe('Run `hawser init` as its owner, "hawser_owner"');
  });

  it("a schema newer than the program", async () => {
    await using system = await startSystem(postgres);
    await system.run("INSERT INTO hawser.migrations (id, name, checksum) VALUES (99, 'later', 'x')");
    expect(onlyFinding(await system.examine())).toMatchObject({
      check: "version",
      code: "schema_too_new",
      what: expect.stringContaining("99 (later)"),
      remedy: "Upgrade the program.",
    });
  });
});

describe("roles and grants", () => {
  it("a grant that is missing, with the statement that gives it", async () => {
    await using system = await startSystem(postgres);
    await system.run("REVOKE EXECUTE ON FUNCTION nats_flush() FROM hawser_nats");
    const finding = onlyFinding(await system.examine());
    expect(finding).toMatchObject({ check: "grants", severity: "error", code: "not_permitted" });
    expect(finding.what).toContain("hawser_nats lacks EXECUTE on function");
    expect(finding.remedy).toContain("nats_flush() TO hawser_nats");
    await system.run(finding.remedy.replace(/^[^:]*: /, ""));
    expect((await system.examine()).findings).toEqual([]);
  });

  it("one that the bridge needs", async () => {
    await using system = await startSystem(postgres);
    await system.run("REVOKE SELECT ON hawser.nats_server FROM hawser_bridge");
    const finding = onlyFinding(await system.examine());
    expect(finding.remedy).toContain("GRANT SELECT ON TABLE hawser.nats_server TO hawser_bridge");
  });

  it.each([
    ["TO pg_monitor", "pg_monitor", { severity: "warning" }],
    ["TO PUBLIC, which subscribed functions could use", "PUBLIC", { severity: "error", code: "executor_login" }],
  ])("a grant that Hawser has not given, with the statement that takes it away: %s", async (_what, role, kind) => {
    await using system = await startSystem(postgres);
    await system.run(`GRANT SELECT ON hawser.gateway_secret TO ${role}`);
    const finding = onlyFinding(await system.examine());
    expect(finding).toMatchObject({ check: "surplus-grants", ...kind });
    expect(finding.remedy.replaceAll('"', "")).toBe(`REVOKE SELECT ON TABLE hawser.gateway_secret FROM ${role}`);
    await system.run(finding.remedy);
    expect((await system.examine()).findings).toEqual([]);
  });

  it("a role for grants alone that can do more", async () => {
    await using system = await startSystem(postgres);
    await system.run("ALTER ROLE hawser_peer CREATEDB");
    try {
      const finding = onlyFinding(await system.examine());
      expect(finding).toMatchObject({
        check: "roles",
        severity: "warning",
        remedy: "ALTER ROLE hawser_peer NOCREATEDB",
      });
    } finally {
      await system.run("ALTER ROLE hawser_peer NOCREATEDB");
    }
  });

  it("notes who may act as the owner: it is whom an installation needs", async () => {
    await using system = await startSystem(postgres);
    await system.run("CREATE ROLE doctor_member", "GRANT hawser_owner TO doctor_member");
    try {
      const report = await system.examine();
      expect(onlyFinding(report)).toMatchObject({ check: "roles", severity: "note" });
      expect(report.ok).toBe(true);
    } finally {
      await system.run("DROP ROLE doctor_member");
    }
  });
});

describe("what hawser init installs", () => {
  it("dblink that is missing, with statements that bring it back", async () => {
    await using system = await startSystem(postgres);
    await system.run("DROP EXTENSION dblink");
    const finding = onlyFinding(await system.examine());
    expect(finding).toMatchObject({ check: "dblink", severity: "error", code: "not_supported" });
    expect(finding.what).toContain("dblink is not installed");
    expect(finding.remedy).toContain("CREATE EXTENSION dblink SCHEMA hawser_dblink");
    await system.run(/: (.*); then run/.exec(finding.remedy)![1]!);
    await install({ databaseUrl: system.superuserUrl });
    expect((await system.examine()).findings).toEqual([]);
  });

  it("dblink that the owner of the functions may not use", async () => {
    await using system = await startSystem(postgres);
    await system.run("REVOKE USAGE ON SCHEMA hawser_dblink FROM hawser_owner");
    const finding = onlyFinding(await system.examine());
    expect(finding).toMatchObject({ check: "dblink", code: "not_permitted" });
    await system.run(finding.remedy.replace(/^[^:]*: /, ""));
    expect((await system.examine()).findings).toEqual([]);
  });

  it("dblink that every role may use", async () => {
    await using system = await startSystem(postgres);
    await system.run(
      "GRANT USAGE ON SCHEMA hawser_dblink TO PUBLIC",
      "GRANT EXECUTE ON FUNCTION hawser_dblink.dblink(text, text) TO PUBLIC",
    );
    expect(onlyFinding(await system.examine())).toMatchObject({ check: "dblink", severity: "warning" });
  });

  it("an SQL function that was dropped", async () => {
    await using system = await startSystem(postgres);
    await system.run("DROP FUNCTION nats_get_text(text, text, text)");
    const finding = onlyFinding(await system.examine());
    expect(finding).toMatchObject({ check: "functions", severity: "error" });
    expect(finding.what).toBe("the SQL function nats_get_text(text, text, text) is missing");
    expect(finding.remedy).toContain("hawser init");
  });

  it("SQL functions of another version, by both versions", async () => {
    await using system = await startSystem(postgres);
    await system.run(
      `DO $do$ BEGIN EXECUTE (SELECT replace(pg_get_functiondef(p.oid), 'SELECT ''', 'SELECT ''0.0.1-')
         FROM pg_proc AS p WHERE p.proname = 'litmus_pgnats_version'); END $do$`,
    );
    const finding = onlyFinding(await system.examine());
    expect(finding).toMatchObject({ check: "functions", severity: "warning" });
    expect(finding.what).toMatch(
      /^the SQL function litmus_pgnats_version\(\) is of version 0\.0\.1-\S+, and this program is version \d+\.\d+\.\d+/,
    );
  });

  it("an event trigger that is disabled, or was dropped", async () => {
    await using system = await startSystem(postgres);
    await system.run("ALTER EVENT TRIGGER hawser_nats_server_follow DISABLE");
    const finding = onlyFinding(await system.examine());
    expect(finding).toMatchObject({ check: "foreign-data", severity: "warning" });
    await system.run(finding.remedy.replace(/^[^:]*: /, ""));
    expect((await system.examine()).findings).toEqual([]);
    await system.run("DROP EVENT TRIGGER hawser_nats_server_follow");
    expect(onlyFinding(await system.examine())).toMatchObject({ check: "foreign-data", severity: "note" });
  });
});

describe("messages", () => {
  it("that were given up", async () => {
    await using system = await startSystem(postgres);
    await system.run(
      `INSERT INTO hawser.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, created_at)
       SELECT 'subscription', 'public.take(bytea)', 'a.b', 'top secret', 'function_failed', 'no', 1, now() - interval '3 h' FROM generate_series(1, 2)`,
    );
    const report = await system.examine();
    const finding = onlyFinding(report);
    expect(finding).toMatchObject({
      check: "dead-letters",
      severity: "warning",
      what: "2 messages of subscriptions were given up, the oldest 3 h ago, most with function_failed",
      remedy: expect.stringContaining("hawser dead list --origin subscription"),
    });
    expect(JSON.stringify(report)).not.toContain("top secret");
    expect(report.checks.find(({ check }) => check === "dead-letters")!.seen).toBeUndefined();
  });

  it("that wait for long for a peer", async () => {
    await using system = await startSystem(postgres);
    await system.run(
      `INSERT INTO hawser.conn_key_map (composite, connection_key) VALUES ('a:b:orders-1', 7)`,
      `INSERT INTO hawser.topic_key (topic, k) VALUES ('orders', 3)`,
      `INSERT INTO hawser.conn_messages (connection_key, epoch, number, topic_key, payload, stored_at)
       VALUES (7, 1, 1, 3, '', now() - interval '5 h'), (7, 1, 2, 3, '', now())`,
    );
    expect(onlyFinding(await system.examine())).toMatchObject({
      check: "stored-messages",
      severity: "warning",
      what: '2 messages of peers wait for "orders-1", the oldest for 5 h, and it does not run',
      remedy: expect.stringContaining("hawser reassign orders-1"),
    });
  });

  it("that cannot be counted because somebody holds a lock, after a few seconds", async () => {
    await using system = await startSystem(postgres);
    const holder = new pg.Client(system.superuserUrl);
    await holder.connect();
    try {
      await holder.query("BEGIN; LOCK TABLE hawser.conn_messages IN ACCESS EXCLUSIVE MODE");
      const report = await system.examine();
      expect(found(report)).toEqual([{ check: "stored-messages", severity: "error", code: "store_failed" }]);
      expect(report.findings[0]!.what).toContain("statement timeout");
    } finally {
      await holder.end();
    }
  });
});
