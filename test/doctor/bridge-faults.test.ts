/**
 * Faults of what runs subscribed functions, seeded one at a time: each is named, with what to do, and nothing else is.
 */
import pg from "pg";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { bridgeConstants } from "../../generated/ts/settings/nats.js";
import type { OwnPostgres } from "../faults/support/own-postgres.js";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";
import { onlyFinding, postgresWithPasswords, type System, startSystem } from "./support/system.js";

let postgres: OwnPostgres;
let system: System;

beforeAll(async () => {
  postgres = await postgresWithPasswords();
});

afterAll(async () => {
  await postgres?.[Symbol.asyncDispose]();
});

beforeEach(async () => {
  system = await startSystem(postgres);
  await system.run(
    "CREATE FUNCTION public.take(bytea) RETURNS void LANGUAGE sql AS ''",
    `SELECT nats_subscribe('doctor.${system.name}', 'public.take'::regproc)`,
  );
  await system.led();
});

afterEach(async () => {
  await system?.[Symbol.asyncDispose]();
});

/** The statement of a remedy. */
const statementOf = (remedy: string): string => remedy.replace(/^[^:]*: /, "").replace(/;.*$/, "");

describe("the functions", () => {
  it("one that was dropped with CASCADE, while nobody served", async () => {
    // A row without its wrapper, as it stays until somebody takes it out.
    await system.serve!.stop();
    await system.run("DROP FUNCTION public.take(bytea) CASCADE");
    const { findings } = await system.examine();
    expect(findings.map(({ check }) => check)).toEqual(["gateway", "handlers"]);
    expect(findings[1]).toMatchObject({
      severity: "error",
      what: `the function public.take(bytea) of the subscription to "doctor.${system.name}" is gone: it was dropped with CASCADE`,
      remedy: expect.stringContaining("SELECT hawser.prune_handlers()"),
    });
    await system.run("SELECT hawser.prune_handlers()");
    expect(onlyFinding(await system.examine()).check).toBe("gateway");
  });

  it("one that the role which it runs as may not execute any more", async () => {
    await system.run(
      "CREATE ROLE doctor_subscriber",
      "GRANT hawser_nats TO doctor_subscriber",
      "CREATE FUNCTION public.closed(bytea) RETURNS void LANGUAGE sql AS ''",
      "SET ROLE doctor_subscriber; SELECT nats_subscribe('doctor.closed', 'public.closed'::regproc); RESET ROLE",
      "REVOKE EXECUTE ON FUNCTION public.closed(bytea) FROM PUBLIC",
    );
    try {
      const finding = onlyFinding(await system.examine());
      expect(finding).toMatchObject({
        check: "handlers",
        code: "not_permitted",
        remedy: "GRANT EXECUTE ON FUNCTION public.closed(bytea) TO doctor_subscriber",
      });
      await system.run(finding.remedy);
      expect((await system.examine()).findings).toEqual([]);
    } finally {
      await system.run("DROP OWNED BY doctor_subscriber CASCADE", "DROP ROLE doctor_subscriber");
    }
  });

  it("says what to do without SQL of whoever named the subject", async () => {
    await system.run(
      "SELECT nats_subscribe('a'',0);DROP/**/SCHEMA/**/public;--', 'public.take'::regproc)",
      `DO $$ DECLARE wrapper regprocedure := (
         SELECT p.oid::regprocedure FROM hawser.nats_handlers AS h
           JOIN pg_proc AS p ON p.proname = h.wrapper AND p.pronamespace = 'hawser_run'::regnamespace
          WHERE h.subject LIKE '%DROP%');
       BEGIN EXECUTE format('ALTER FUNCTION %s SECURITY INVOKER', wrapper); END $$`,
    );
    const { remedy } = onlyFinding(await system.examine());
    expect(remedy).toContain("SELECT nats_subscribe('a'',0);DROP/**/SCHEMA/**/public;--', '…')");
    await system.run(remedy.slice(0, remedy.indexOf("; then")));
    await system.run("SELECT hawser.prune_handlers()");
    expect((await system.examine()).findings).toEqual([]);
  });

  it("one whose wrapper the executor may not call", async () => {
    const [row] = await rowsOf(system.superuserUrl, "SELECT wrapper FROM hawser.nats_handlers");
    const wrapper = pg.escapeIdentifier(row!["wrapper"] as string);
    await system.run(`REVOKE EXECUTE ON FUNCTION hawser_run.${wrapper} FROM hawser_executor`);
    const finding = onlyFinding(await system.examine());
    expect(finding).toMatchObject({ check: "handlers", code: "not_permitted" });
    await system.run(finding.remedy);
    expect((await system.examine()).findings).toEqual([]);
  });
});

describe("the login that runs them", () => {
  let login: string;

  beforeEach(async () => {
    const [row] = await rowsOf(system.superuserUrl, "SELECT user_name FROM hawser.executor_login");
    login = row!["user_name"] as string;
  });

  it.each([
    ["is superuser", (role: string) => `ALTER ROLE ${role} SUPERUSER`, "it has SUPERUSER"],
    ["is in another role", (role: string) => `GRANT pg_read_all_data TO ${role}`, 'a member of "pg_read_all_data"'],
    ["may not log in", (role: string) => `ALTER ROLE ${role} NOLOGIN`, "may not log in"],
    ["has expired", (role: string) => `ALTER ROLE ${role} VALID UNTIL '2020-01-01'`, "has expired"],
    ["is not in hawser_executor", (role: string) => `REVOKE hawser_executor FROM ${role}`, "is not in hawser_executor"],
  ])("%s", async (_what, seed, words) => {
    await system.run(seed(login));
    const finding = onlyFinding(await system.examine());
    expect(finding).toMatchObject({ check: "executor-login", severity: "error", code: "executor_login" });
    expect(finding.what).toContain(words);
    await system.run(statementOf(finding.remedy));
    await eventually("all is well again", async () => (await system.examine()).findings.length === 0);
  });

  it("has another password", async () => {
    await system.run(`ALTER ROLE ${login} PASSWORD 'another'`);
    const finding = onlyFinding(await system.examine());
    expect(finding).toMatchObject({ check: "executor-login", code: "executor_login" });
    expect(finding.what).toContain("cannot connect: password authentication failed");
    expect(finding.remedy).toContain(`DROP ROLE "${login}"`);
  });

  it("is missing", async () => {
    await system.serve!.stop();
    await system.run(`DROP OWNED BY ${login}`, `DROP ROLE ${login}`);
    const { findings } = await system.examine();
    expect(findings.map(({ check }) => check)).toEqual(["gateway", "executor-login"]);
    expect(findings[1]!.what).toContain(`"${login}", which runs subscribed functions, is missing`);
  });

  it("is another one, by --executor-url", async () => {
    await system.run("CREATE ROLE doctor_executor LOGIN PASSWORD 'executor' IN ROLE hawser_executor");
    try {
      const executorUrl = new URL(system.url);
      executorUrl.username = "doctor_executor";
      executorUrl.password = "executor";
      expect((await system.examine({ executorUrl: executorUrl.href })).findings).toEqual([]);
      await system.run("ALTER ROLE doctor_executor CREATEROLE");
      const finding = onlyFinding(await system.examine({ executorUrl: executorUrl.href }));
      expect(finding.remedy).toBe('ALTER ROLE "doctor_executor" NOCREATEROLE');
    } finally {
      await system.run("DROP OWNED BY doctor_executor", "DROP ROLE doctor_executor");
    }
  });

  it("leads to another database, by --executor-url, also to one with Hawser in it", async () => {
    await using other = await startSystem(postgres, { serve: false });
    const [own] = await rowsOf(other.superuserUrl, "SELECT user_name, password FROM hawser.executor_login");
    const executorUrl = new URL(other.url);
    executorUrl.username = own!["user_name"] as string;
    executorUrl.password = own!["password"] as string;
    const finding = onlyFinding(await system.examine({ executorUrl: executorUrl.href }));
    expect(finding).toMatchObject({
      check: "executor-login",
      severity: "error",
      code: "executor_login",
      remedy: "Let --executor-url name the server and the database that --database-url names, with the other login.",
    });
    expect(finding.what).toContain(`has reached the database "${other.name}" of the server at ${executorUrl.host}`);
    expect(finding.what).toContain(`and not the database "${system.name}" of the server at ${executorUrl.host}`);
    expect(JSON.stringify(finding)).not.toContain(executorUrl.password);
  });
});

describe("the leader", () => {
  it("that does not beat", async () => {
    const holder = new pg.Client(system.superuserUrl);
    await holder.connect();
    try {
      await holder.query("BEGIN; SELECT FROM hawser.bridge_lead FOR UPDATE");
      const finding = onlyFinding(await system.examine());
      expect(finding).toMatchObject({ check: "lead", severity: "error" });
      expect(finding.what).toMatch(/^the process that led \(\S+\) has not been heard for \d+ ms/);
      expect(finding.what).toContain(` ${bridgeConstants.leadExpiryMs} ms`);
      expect(finding.what).toContain("the functions of 1 subscription are not called");
    } finally {
      await holder.end();
    }
  });

  it("that is behind", async () => {
    await system.serve!.stop();
    // What a leader writes, at its pace.
    const leader = new pg.Client(system.superuserUrl);
    await leader.connect();
    const beating = new AbortController();
    const beats = (async () => {
      while (!beating.signal.aborted) {
        await leader.query(
          "UPDATE hawser.bridge_lead SET owner = 'slow', beat = beat + 1, progress_at = now() - interval '75 s'",
        );
      }
    })();
    try {
      const { findings } = await system.examine();
      expect(findings.map(({ check, severity }) => `${check} ${severity}`)).toEqual(["gateway error", "lead warning"]);
      expect(findings[1]!.what).toMatch(/^the leader is (7[5-9]|8\d)\.\d s behind/);
    } finally {
      beating.abort();
      await beats;
      await leader.end();
    }
  });
});
