/**
 * The bench as a command: on real servers, by its suites, and stopped in the middle.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { describe, expect, inject, it } from "vitest";
import { helpText } from "../../bench/arguments.js";
import { variables } from "../../bench/baselines.js";
import { sinceNats, streamWays } from "../../bench/live/ways.js";
import { type BenchRecord, type BenchReport, type BenchResult, resultOf } from "../../bench/report.js";
import { alternativeNames } from "../../bench/rpc/alternatives.js";
import { suites } from "../../bench/suites.js";
import { eventually } from "../support/eventually.js";
import { natsServerIsFrom } from "../support/nats-server.js";
import { rowsOf } from "../support/on-server.js";
import { type Program, startProgram } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";

const databaseUrl = inject("databaseUrl");
/** On the servers of the tests; and without the baselines that do not come with it, even where they are set. */
const env = {
  HAWSER_DATABASE_URL: databaseUrl,
  HAWSER_NATS_URL: inject("natsUrl"),
  ...Object.fromEntries(Object.keys(variables).map((name) => [name, undefined])),
};
const bench = (...args: string[]) => startProgram("bench/main.ts", args, { env }).ended;

/** Results of a way and how many are in flight, such as `request, 64`. */
function asked(load: string): string[] {
  const [way, inFlight] = load.split(", ");
  return ["p50", "p99", "calls"].map((what) => `${way}, ${what}, ${inFlight} in flight`);
}

/** Results and baselines that each suite must have. */
const expected: Readonly<Record<string, { results: readonly string[]; baselines: readonly string[] }>> = {
  "peer-live": { results: ["at-most-once", "at-least-once"], baselines: ["tcp", "nats-core", "at-most-once"] },
  "peer-durable": {
    results: ["at-least-once"],
    baselines: [
      ...(
        await Promise.all(streamWays.map(async (way) => ((await natsServerIsFrom(`2.${sinceNats[way]}`)) ? [way] : [])))
      ).flat(),
      "at-most-once",
    ],
  },
  "ping-pong": {
    results: ["request and reply, 1", "request, 1", "request, 64", "until delivered, 1"].flatMap(asked),
    baselines: ["tcp", "request and reply", "nats.js", "zeromq.js", "tcp and commit"],
  },
  rpc: {
    results: ["over peers, 1", "over NATS, 1", "over peers, 64", "over NATS, 64"].flatMap(asked),
    baselines: ["peer.request", ...alternativeNames, "NATS request"],
  },
  path: {
    results: [
      ...["files", "functions", "calls"].flatMap((name) =>
        ["all", "channel", "wire", "peer", "generated", "runtime", "transport", "store", "postgres"].map(
          (folder) => `${name}, ${folder}`,
        ),
      ),
      ...["CPU", "garbage"].flatMap((name) =>
        ["one at a time, sender", "one at a time, listener", "burst, sender", "burst, listener"].map(
          (how) => `${name}, ${how}`,
        ),
      ),
    ],
    baselines: [],
  },
  typed: {
    results: ["at-most-once", "at-least-once"].flatMap((how) => [`typed publish, ${how}`, `typed handler, ${how}`]),
    baselines: ["raw", "protobuf-es, then sendTo", "protobuf-es in the handler"],
  },
  tracing: {
    results: ["live", "transactional", "rpc"].flatMap((kind) =>
      ["off", "sdk", "on", "every"].map((mode) => `${kind}, ${mode}`),
    ),
    baselines: ["absent", "sdk"],
  },
  offline: { results: ["store", "drain", "total"], baselines: ["pg-boss", "graphile-worker"] },
  backlog: { results: ["drain, 200 messages", "drain, 2,000 messages"], baselines: ["sql"] },
  handlers: {
    results: [
      ...["20 jobs, 1 process", "20 jobs, 2 processes", "40 jobs, 1 process", "40 jobs, 2 processes"].map(
        (size) => `handled, ${size}`,
      ),
      "commit to effect, p50",
      "commit to effect, p99",
    ],
    baselines: ["pg-boss", "pg-boss by hand", "graphile-worker", "graphile-worker by hand"],
  },
  channels: {
    results: ["throughput", "listener statements", "sender statements", "listener RSS", "listener heap"].flatMap(
      (name) => [`${name}, 1 channel`, `${name}, 5 channels`],
    ),
    baselines: ["1 channel"],
  },
  growth: {
    results: [
      ...["time by channels", "listener CPU by channels", "sender CPU by channels"].flatMap((name) => [
        `${name}, 1 channel`,
        `${name}, 5 channels`,
      ]),
      ...["time by topics", "CPU by topics", "idle CPU by topics"].flatMap((name) => [
        `${name}, 2 topics`,
        `${name}, 20 topics`,
      ]),
      ...["time by peers", "CPU by peers", "store by peers", "start by peers"].flatMap((name) => [
        `${name}, 2 peers`,
        `${name}, 20 peers`,
      ]),
      ...["store by stored messages", "drain by stored messages"].flatMap((name) => [
        `${name}, 100 stored messages`,
        `${name}, 2,000 stored messages`,
      ]),
      ...[
        "subscribe by subscriptions",
        "time by subscriptions",
        "CPU by subscriptions",
        "time, to all, by subscriptions",
        "CPU, to all, by subscriptions",
        "idle CPU by subscriptions",
      ].flatMap((name) => [`${name}, 2 subscriptions`, `${name}, 20 subscriptions`]),
    ],
    baselines: ["1 channel", "2 topics", "2 peers", "100 stored messages", "2 subscriptions"],
  },
  "sql-publish": {
    results: [
      "nats_publish_text, 1 session",
      "nats_publish_text_batch, 1 session",
      "nats_publish_text, calls, 2 sessions",
      "nats_publish_text_batch, 2 sessions",
      ...["row trigger", "statement trigger", "row trigger, outbox", "statement trigger, outbox"].map(
        (way) => `an inserted row, ${way}`,
      ),
    ],
    baselines: ["dblink", "empty dblink", "no trigger"],
  },
  "sql-calls": {
    results: ["request", "kv put", "kv get", "stream publish"].flatMap((operation) => [
      `${operation}, 1 session`,
      `${operation}, calls, 10 sessions`,
      // Only Linux says what a backend has used.
      ...(process.platform === "linux" ? [1, 10] : []).map(
        (count) => `${operation}, CPU, ${count} ${count === 1 ? "session" : "sessions"}`,
      ),
    ]),
    baselines: ["empty dblink + nats.js", "1 session", "empty dblink"],
  },
  subscribe: {
    results: [
      "from the first publish",
      "from a backlog",
      "serve RSS",
      "serve CPU",
      "ping to row, p50",
      "ping to row, p99",
    ],
    baselines: ["1 connection", "8 connections", "prepared transaction"],
  },
  outbox: {
    results: [
      ...["1 session", "8 sessions", "8 sessions, with keys", "1,000 in a statement"].map((way) => `enqueue, ${way}`),
      ...["8 sessions, 100 a transaction", "8 sessions, 1 a transaction", "a backlog"].map(
        (way) => `to the stream, ${way}`,
      ),
      "to the stream, 8 sessions, 100 a transaction, old transaction",
      "commit to acknowledgement, p50",
      "commit to acknowledgement, p99",
      "commit to a peer's handler, p50",
      "commit to a peer's handler, p99",
      ...["1 session", "2 sessions"].map((size) => `time by sessions, ${size}`),
      ...["100 B", "1 KiB"].map((size) => `time by payload, ${size}`),
      ...["1 key", "10 keys"].map((size) => `time by keys, ${size}`),
      ...["100 waiting", "1,000 waiting"].map((size) => `time by backlog, ${size}`),
    ],
    baselines: [
      ...["INSERT", "pg-boss", "graphile-worker", "by hand", "without it", "through NATS"],
      ...["1 session", "100 B", "1 key", "100 waiting"],
    ],
  },
  streams: {
    results: [
      "stream to rows",
      "stream to rows, by batches",
      ...["100 B", "1 KiB"].map((size) => `time by payload, ${size}`),
      ...["1 key", "10 keys"].map((size) => `time by keys, ${size}`),
      ...["100 in the stream", "1,000 in the stream"].map((size) => `time by length, ${size}`),
      ...["1 subscription", "2 subscriptions"].map((size) => `time by subscriptions, ${size}`),
    ],
    baselines: ["consumer", "bulk consumer", "100 B", "1 key", "100 in the stream", "1 subscription"],
  },
  liner: {
    results: ["at-most-once", "at-least-once"].flatMap((name) => [`${name}, one process`, `${name}, two processes`]),
    baselines: [],
  },
};

/** Checks reported results. */
function expectMeasured(suite: string, results: readonly BenchResult[]): void {
  expect(results.map(({ name }) => name)).toEqual(expected[suite]!.results);
  const compared = new Set(results.flatMap((result) => Object.keys(result.baselines)));
  expect([...compared]).toEqual(expected[suite]!.baselines);
  for (const { name, payloadBytes, unit, median, min, max, baselines, ...more } of results) {
    expect(more).toEqual({});
    expect(payloadBytes).toBeGreaterThan(0);
    expect(unit).toMatch(
      /^(messages\/s|jobs\/s|calls\/s|µs|ms|ms\/s|s|MiB|B|files|functions|calls|per 1,000 messages)$/,
    );
    expect([min, median, max]).toEqual([min, median, max].sort((a, b) => a - b));
    // A short run may need no statement of the senders.
    if (!name.startsWith("sender statements")) expect(min).toBeGreaterThan(0);
    for (const baseline of Object.values(baselines)) {
      expect(baseline).toEqual({ median: expect.any(Number), ratio: expect.any(Number) });
      expect(baseline.median).toBeGreaterThan(0);
    }
  }
}

// What starts up to seven processes at a time may take long on a busy machine.
describe("a quick run", { timeout: 1_800_000 }, () => {
  it("of all suites measures on real servers, each with its baselines", async () => {
    const file = join(temporaryDirectory(), "all.json");
    const { status, stdout, stderr } = await bench("all", "--quick", "--json", file);
    expect(status, stderr).toBe(0);
    const record = JSON.parse(readFileSync(file, "utf8")) as BenchRecord;
    expect(record.suites.map(({ suite }) => suite)).toEqual(suites.map(({ name }) => name));
    for (const { suite, results } of record.suites) {
      expect(stdout).toContain(`# ${suite}\n`);
      expectMeasured(suite, results.map(resultOf));
    }
  });

  it("of one suite reports in the shape of the design", async () => {
    const file = join(temporaryDirectory(), "one.json");
    const { status, stdout, stderr } = await bench("ping-pong", "--quick", "--json", file);
    expect(status, stderr).toBe(0);
    expect(stdout).toContain("medians; ratio:");
    const { results, ...rest } = JSON.parse(readFileSync(file, "utf8")) as BenchReport;
    expect(rest).toEqual({ suite: "ping-pong", node: process.version, cpus: availableParallelism() });
    expectMeasured("ping-pong", results);
  });
});

describe("the bench command", () => {
  it("explains itself with status 0", async () => {
    expect(await bench("--help")).toEqual({ status: 0, signal: null, stdout: helpText(suites), stderr: "" });
  });

  it("ends with status 64 for wrong arguments, before anything is started", async () => {
    const ends = await Promise.all([
      bench("peer-dead"),
      bench("peer-live", "--json", "/no/such/folder/out.json"),
      bench("--write-docs", "--from", "/no/such/folder/in.json"),
    ]);
    for (const [index, named] of ['"peer-dead"', "/no/such/folder", "/no/such/folder"].entries()) {
      expect(ends[index]).toMatchObject({ status: 64, stdout: "", stderr: expect.stringContaining(named) });
    }
    expect(ends[1]!.stderr.split("\n")).toHaveLength(3);
  });
});

/** The processes that the bench has started, as the system lists them. */
function workersOf({ pid }: Program): number[] {
  const listed = execFileSync("ps", ["-A", "-o", "pid=,ppid=,args="], { encoding: "utf8" }).trim().split("\n");
  return listed
    .map((line) => line.trim().split(/\s+/))
    .filter(([, parent, ...args]) => Number(parent) === pid && args.join(" ").includes("bench/live/"))
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
    env,
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
    expect(stderr.trim().split("\n").at(-1)).toBe("bench: stopped before the end");
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
