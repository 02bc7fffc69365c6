/**
 * Where nothing is wrong, nothing is found.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { doctor } from "../../src/doctor/index.js";
import { install } from "../../src/store/index.js";
import type { OwnPostgres } from "../faults/support/own-postgres.js";
import { onServer } from "../support/on-server.js";
import { postgresWithPasswords, startSystem } from "./support/system.js";

let postgres: OwnPostgres;

beforeAll(async () => {
  postgres = await postgresWithPasswords();
});

afterAll(async () => {
  await postgres?.[Symbol.asyncDispose]();
});

describe("a healthy system", () => {
  it("is found to be one, with a subscription and a responder", async () => {
    await using system = await startSystem(postgres);
    await system.run(
      "CREATE FUNCTION public.take(bytea) RETURNS void LANGUAGE sql AS ''",
      "CREATE FUNCTION public.answer(bytea) RETURNS bytea LANGUAGE sql AS 'SELECT $1'",
      `SELECT nats_subscribe('doctor.${system.name}', 'public.take'::regproc)`,
      `SELECT litmus_pgnats_register_responder('doctor.${system.name}.ask', 'public.answer'::regproc)`,
    );
    await system.led();
    for (const databaseUrl of [system.url, system.superuserUrl]) {
      const report = await system.examine({ databaseUrl });
      expect(report.findings).toEqual([]);
      expect(report.checks.filter(({ outcome, why }) => outcome !== "ok" || why !== undefined)).toEqual([]);
      expect(report.ok).toBe(true);
    }
  });

  it("is one for a login that may look at little, which is told what it could not see", async () => {
    await using system = await startSystem(postgres);
    await system.run(`REVOKE hawser_nats, hawser_peer FROM ${system.login}`);
    const report = await system.examine();
    expect(report.findings).toEqual([]);
    const unseen = report.checks.filter(({ why }) => why !== undefined);
    expect(unseen.map(({ check }) => check)).toEqual(["gateway", "stored-messages"]);
    expect(unseen[0]!.why).toContain(`GRANT hawser_nats TO "${system.login}"`);
    await system.run(`REVOKE hawser_bridge FROM ${system.login}`, `GRANT hawser_nats TO ${system.login}`);
    expect((await system.examine()).findings).toEqual([]);
    await system.run(`REVOKE hawser_nats FROM ${system.login}`, `GRANT hawser_peer TO ${system.login}`);
    expect((await system.examine()).findings).toEqual([]);
  });

  it("may be for peers alone", async () => {
    await onServer(postgres.url, "CREATE DATABASE doctor_peers");
    const url = new URL(postgres.url);
    url.pathname = "/doctor_peers";
    await install({ databaseUrl: url.href, nats: false });
    const report = await doctor({ databaseUrl: url.href, secretsDirectories: [] });
    expect(report.findings).toEqual([]);
    expect(report.checks.find(({ check }) => check === "dblink")).toMatchObject({
      outcome: "not_checked",
      why: "nats-from-sql: there is none",
    });
  });

  it("may not be used yet, which is noted", async () => {
    await using system = await startSystem(postgres, { serve: false, natsOptions: false });
    const report = await system.examine();
    expect(report.ok).toBe(true);
    expect(report.findings).toMatchObject([
      { check: "nats-server", severity: "note", what: expect.stringContaining("not used") },
    ]);
  });
});
