/**
 * `hawser doctor` for a whole system: what it prints, and its exit status.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { postgresWithPasswords, type System, startSystem } from "../doctor/support/system.js";
import type { OwnPostgres } from "../faults/support/own-postgres.js";
import { rowsOf } from "../support/on-server.js";
import { hawser, hawserProcess } from "./support/hawser.js";

let postgres: OwnPostgres;
let system: System;

beforeAll(async () => {
  postgres = await postgresWithPasswords();
  system = await startSystem(postgres);
});

afterAll(async () => {
  await system?.[Symbol.asyncDispose]();
  await postgres?.[Symbol.asyncDispose]();
});

describe("hawser doctor", () => {
  it("ends with 0 where all is well, and says how much it has looked at", async () => {
    const { status, stdout, stderr } = await hawserProcess(["doctor"], { databaseUrl: system.url });
    expect({ status, stdout, stderr }).toEqual({
      status: 0,
      stdout: "No problems found: 30 checks of 30 done.\n",
      stderr: "",
    });
    const verbose = await hawser(["doctor", "--verbose"], { databaseUrl: system.url });
    expect(verbose.stdout).toContain(
      `ok      database: "${system.login}" is connected to the database "${system.name}"`,
    );
    expect(verbose.stdout.match(/^ok {6}/gm)).toHaveLength(30);
  });

  it("tells what is wrong and what to do, and ends with 1", async () => {
    const url = new URL(system.url);
    url.password = "s3cret";
    const { status, stdout } = await hawser(["doctor"], { databaseUrl: url.href });
    expect(status).toBe(1);
    expect(stdout).toMatch(
      /^error {3}database: Postgres at \S+ refused the password of the login "\w+" \[store_failed\]\n {8}remedy: Set the right password .*\nNot checked until `database` succeeds: schema, login, version, /,
    );
    expect(stdout).toMatch(/\n1 error; 1 of 30 checks done\.\n$/);
    expect(stdout).not.toContain("s3cret");
  });

  it("ends with 1 for an error without a code, too, and for warnings with --strict alone", async () => {
    await system.run("ALTER EVENT TRIGGER hawser_nats_server_follow DISABLE");
    try {
      expect((await hawser(["doctor"], { databaseUrl: system.url })).status).toBe(0);
      const { status, stdout } = await hawser(["doctor", "--strict"], { databaseUrl: system.url });
      expect(status).toBe(1);
      expect(stdout).toMatch(/^warning foreign-data: .*\n {8}remedy: As a superuser: ALTER EVENT TRIGGER/);
      await system.run("DROP FUNCTION nats_flush()");
      expect((await hawser(["doctor"], { databaseUrl: system.url })).status).toBe(1);
    } finally {
      await hawser(["init"], { databaseUrl: system.superuserUrl });
      await system.run("ALTER EVENT TRIGGER hawser_nats_server_follow ENABLE");
    }
  });

  it("prints one object with --json", async () => {
    await system.run("REVOKE EXECUTE ON FUNCTION nats_flush() FROM hawser_nats");
    try {
      const { status, stdout } = await hawser(["doctor", "--json"], { databaseUrl: system.url });
      expect(status).toBe(1);
      expect(stdout.split("\n")).toHaveLength(2);
      const report = JSON.parse(stdout) as { ok: boolean; findings: unknown[]; checks: unknown[] };
      expect(report.ok).toBe(false);
      expect(report.findings).toEqual([
        {
          check: "grants",
          severity: "error",
          code: "not_permitted",
          what: expect.stringContaining("hawser_nats lacks EXECUTE"),
          remedy: expect.stringContaining("GRANT EXECUTE ON FUNCTION"),
        },
      ]);
      expect(report.checks[0]).toEqual({
        check: "database",
        outcome: "ok",
        seen: expect.stringContaining(system.name),
        why: null,
      });
    } finally {
      await system.run("GRANT EXECUTE ON FUNCTION nats_flush() TO hawser_nats");
    }
  });

  it("changes nothing", async () => {
    // Place and writer of each row, but for tables that what runs beside it writes to.
    const look = `SELECT relname, query_to_xml(
        format('SELECT ctid::text AS place, xmin::text AS writer FROM %s ORDER BY ctid', oid::regclass), true, true, ''
      )::text AS rows FROM pg_class WHERE relnamespace IN ('hawser_data'::regnamespace, 'hawser_peer_data'::regnamespace, 'hawser_bridge_data'::regnamespace) AND relkind IN ('r', 'p')
        AND relname NOT IN ('gateways', 'owners', 'fences', 'outbox_turns') ORDER BY relname`;
    const before = await rowsOf(system.superuserUrl, look);
    await hawser(["doctor"], { databaseUrl: system.superuserUrl });
    expect(await rowsOf(system.superuserUrl, look)).toEqual(before);
  });
});
