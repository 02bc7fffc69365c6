import { execFileSync } from "node:child_process";
import { describe, inject, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";
import { type Program, startProgram } from "../support/program.js";

const databaseUrl = inject("databaseUrl");

/** The processes that the bench has started, as the system lists them. */
function workersOf({ pid }: Program): number[] {
  const listed = execFileSync("ps", ["-A", "-o", "pid=,ppid=,args="], { encoding: "utf8" }).trim().split("\n");
  return listed
    .map((line) => line.trim().split(/\s+/))
    .filter(([, parent, ...args]) => Number(parent) === pid && args.join(" ").includes("bench/peer-live/"))
    .map(([child]) => Number(child));
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** Starts the suite on the servers of the tests, in a group of its own, and waits until it measures. */
async function measuring(): Promise<{ bench: Program; workers: number[] }> {
  const bench = startProgram("bench/main.ts", ["peer-live"], {
    env: { HAWSER_DATABASE_URL: databaseUrl, HAWSER_NATS_URL: inject("natsUrl") },
    ownGroup: true,
  });
  let said = "";
  bench.child.stderr!.on("data", (chunk: Buffer) => (said += chunk.toString()));
  await eventually("it measures", () => said.includes("Measuring"), 60_000);
  return { bench, workers: workersOf(bench) };
}

/** The databases that the bench has made and not dropped. */
async function databasesOf({ pid }: Program): Promise<unknown[]> {
  const rows = await rowsOf(databaseUrl, `SELECT datname FROM pg_database WHERE datname ~ '^hawser_bench_${pid}_'`);
  return rows.map(({ datname }) => datname);
}

describe.concurrent("a bench that is stopped", { timeout: 120_000 }, () => {
  it("by Ctrl-C ends its processes in order, drops its database and says so with its status", async ({ expect }) => {
    const { bench, workers } = await measuring();
    expect(workers).toHaveLength(2);
    // Ctrl-C in a terminal reaches the whole group.
    process.kill(-bench.pid, "SIGINT");
    const { status, stdout, stderr } = await bench.ended;
    expect({ status, stdout }).toEqual({ status: 130, stdout: "" });
    expect(stderr.trim().split("\n").at(-1)).toBe("bench: stopped before the end; nothing was reported");
    expect(workers.filter(isAlive)).toEqual([]);
    expect(await databasesOf(bench)).toEqual([]);
  });

  it("by being killed leaves no process behind", async () => {
    const { bench, workers } = await measuring();
    bench.child.kill("SIGKILL");
    await bench.ended;
    await eventually("its workers have ended", () => !workers.some(isAlive));
    for (const name of await databasesOf(bench)) await rowsOf(databaseUrl, `DROP DATABASE ${name} WITH (FORCE)`);
  });
});
