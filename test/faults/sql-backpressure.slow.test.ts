/**
 * More calls than NATS takes: by the option `capacity`, and because the server does not read (SIGSTOP).
 */
import { spawnSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { testGateway } from "../support/gateway.js";
import { startNatsServer } from "../support/nats-server.js";
import { patienceMs, faultSeed as seed } from "./support/kills.js";
import { problems } from "./support/ledger.js";
import { ServeProcess } from "./support/serve-process.js";
import { auditSql } from "./support/sql-audit.js";
import type { CallKindName } from "./support/sql-calls.js";
import { sqlDatabase } from "./support/sql-database.js";
import { patientLimits, SqlLoad } from "./support/sql-load.js";
import { SqlWitness } from "./support/sql-witness.js";
import { systemProgram } from "./support/system-program.js";

describe("a server that takes one command at once, and 100 sessions", () => {
  it("gives each of them its turn, as long as there is time for all", { timeout: patienceMs }, async () => {
    const { callTimeoutMs } = patientLimits;
    await using gateway = await testGateway({ serverOptions: { capacity: "1" }, callTimeoutMs });
    await using witness = await SqlWitness.open(testNatsUrl(), { answerAfterMs: 0 });
    const options = { databaseUrl: gateway.database.url, witness, seed, callTimeoutMs };
    const begun = performance.now();
    await using load = await SqlLoad.start({ ...options, sessions: 100, kinds: ["core", "ack", "put"] });
    await load.more(500);
    const turns = await load.recovered(begun);
    await load.stop();
    const found = await auditSql(load);
    console.log(`capacity 1: ${found.summary}; each had its turn within ${Math.round(turns)} ms`);
    expect(problems(found.findings)).toEqual([]);
    expect(found.coreLost).toBe(0);
    expect(load.calls.filter(({ outcome }) => outcome !== "confirmed")).toEqual([]);
  });

  it("tells those in time for whom there is none, and sends nothing of theirs", { timeout: patienceMs }, async () => {
    await using gateway = await testGateway({ serverOptions: { capacity: "1" } });
    // About 40 of 100 requests with a time limit of two seconds get their turn.
    await using witness = await SqlWitness.open(testNatsUrl(), { answerAfterMs: 50 });
    const options = { databaseUrl: gateway.database.url, witness, seed };
    const begun = performance.now();
    await using load = await SqlLoad.start({ ...options, sessions: 100, kinds: ["request"] });
    await load.more(300);
    await load.stop();
    const seconds = (performance.now() - begun) / 1_000;
    const found = await auditSql(load);
    const confirmed = load.calls.filter(({ outcome }) => outcome === "confirmed").length;
    console.log(`capacity 1, overload: ${found.summary}; ${(confirmed / seconds).toFixed(1)} confirmed each second`);
    expect(problems(found.findings)).toEqual([]);
    // A command that was given its turn late has no time left.
    const states = new Set(load.calls.map(({ sqlstate }) => sqlstate));
    expect([...states].filter((state) => state !== undefined && state !== "53300" && state !== "NA001")).toEqual([]);
    expect(states).toContain("53300");
    expect(confirmed).toBeGreaterThan(0);
  });
});

it("ends calls in time while NATS does not read, in bounded memory, and goes on when it reads again", {
  timeout: patienceMs,
}, async () => {
  const callTimeoutMs = 1_000;
  await using nats = await startNatsServer({ jetStream: true });
  await using database = await sqlDatabase(nats.url);
  await using witness = await SqlWitness.open(nats.url);
  await using serve = await ServeProcess.start(database.url, ["--call-timeout", `${callTimeoutMs}ms`]);
  const options = { databaseUrl: database.url, witness, seed, callTimeoutMs };
  // Mostly those that wait for nothing but the socket, so that they fill what the kernel holds between the two.
  const kinds = [...Array<CallKindName>(4).fill("core batch"), "stream batch", "put file"] as const;
  await using load = await SqlLoad.start({ ...options, sessions: 40, kinds });
  await load.more(500);
  const before = megabytesOf(serve.pid);

  nats.signal("SIGSTOP");
  const stopped = performance.now();
  const failed = () => load.calls.filter(({ begun, sqlstate }) => begun > stopped && sqlstate !== undefined);
  await eventually(
    "publishes fail, too",
    () => failed().filter(({ kind }) => kind === "core batch").length > 80,
    60_000,
  );
  const during = megabytesOf(serve.pid);
  nats.signal("SIGCONT");
  const back = await load.recovered(performance.now());
  await load.more(200);
  await load.stop();
  const found = await auditSql(load);
  const publishes = failed();
  const slowest = Math.max(...publishes.map(({ begun, ended }) => ended - begun));
  console.log(
    `NATS stood still: ${found.summary}; slowest publish ${Math.round(slowest)} ms; all sessions back after ` +
      `${Math.round(back)} ms; the gateway had ${before} MB before and ${during} MB then`,
  );
  expect(problems(found.findings)).toEqual([]);
  // The server was not killed: what the gateway has written it reads in the end.
  expect(found.coreLost).toBe(0);
  expect(during - before).toBeLessThan(64);
});

/** Resident memory of a process. */
function megabytesOf(pid: number): number {
  const { stdout } = spawnSync(systemProgram("ps"), ["-o", "rss=", "-p", `${pid}`], { encoding: "utf8" });
  return Math.round(Number(stdout) / 1024);
}
