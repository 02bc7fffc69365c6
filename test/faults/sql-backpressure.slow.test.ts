/**
 * More calls than NATS takes, because the server does not read (SIGSTOP).
 */
import { spawnSync } from "node:child_process";
import { expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { startNatsServer } from "../support/nats-server.js";
import { patienceMs, faultSeed as seed } from "./support/kills.js";
import { problems } from "./support/ledger.js";
import { ServeProcess } from "./support/serve-process.js";
import { auditSql } from "./support/sql-audit.js";
import type { CallKindName } from "./support/sql-calls.js";
import { sqlDatabase } from "./support/sql-database.js";
import { SqlLoad } from "./support/sql-load.js";
import { SqlWitness } from "./support/sql-witness.js";
import { systemProgram } from "./support/system-program.js";

it("calls end in time while NATS does not read, in bounded memory, and work when it reads again", {
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
