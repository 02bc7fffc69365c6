import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, inject, it } from "vitest";
import type { BenchReport } from "../../bench/report.js";
import { suites } from "../../bench/suites.js";
import { startProgram } from "../support/program.js";

/** On the servers of the tests; and without liner, even where it was built. */
const env = {
  HAWSER_DATABASE_URL: inject("databaseUrl"),
  HAWSER_NATS_URL: inject("natsUrl"),
  HAWSER_BENCH_LINER: undefined,
};

/** Of each suite, what it must have measured and with what it must have compared it. */
const expected: Readonly<Record<string, { results: readonly string[]; baselines: readonly string[] }>> = {
  "peer-live": { results: ["at-most-once", "at-least-once"], baselines: ["tcp", "nats-core", "at-most-once"] },
  "peer-durable": { results: ["at-least-once"], baselines: ["jetstream", "at-most-once"] },
  "ping-pong": {
    results: ["request and reply, p50", "request and reply, p99", "until delivered, p50", "until delivered, p99"],
    baselines: ["tcp", "tcp and commit"],
  },
  offline: { results: ["store", "drain", "total"], baselines: ["pg-boss", "graphile-worker"] },
  backlog: { results: ["drain, 200 messages", "drain, 2,000 messages"], baselines: ["sql"] },
  channels: {
    results: ["throughput", "listener statements", "sender statements", "listener RSS", "listener heap"].flatMap(
      (name) => [`${name}, 1 channel`, `${name}, 5 channels`],
    ),
    baselines: ["1 channel"],
  },
  "sql-publish": {
    results: [
      "nats_publish_text, 1 session",
      "nats_publish_text_batch, 1 session",
      "nats_publish_text, calls, 2 sessions",
      "nats_publish_text_batch, 2 sessions",
    ],
    baselines: ["dblink", "empty dblink"],
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
  liner: { results: ["cycle, one process", "cycle, two processes"], baselines: ["liner, published"] },
};

const directory = mkdtempSync(join(tmpdir(), "hawser-test-"));
afterAll(() => rmSync(directory, { recursive: true }));

/** How long a suite, which starts up to seven processes, may take on a busy machine. */
const timeoutMs = 240_000;

describe("a quick run of the suite", () => {
  it.each(suites.map(({ name }) => name))(
    "%s measures on real servers and reports in the shape of the design",
    async (suite) => {
      const file = join(directory, `${suite}.json`);
      const args = [suite, "--quick", "--json", file];
      const { status, stdout, stderr } = await startProgram("bench/main.ts", args, { env }).ended;
      expect(status, stderr).toBe(0);
      expect(stdout).toContain("medians; ratio:");
      const { results, ...rest } = JSON.parse(readFileSync(file, "utf8")) as BenchReport;
      expect(rest).toEqual({ suite, node: process.version, cpus: availableParallelism() });
      expect(results.map(({ name }) => name)).toEqual(expected[suite]!.results);
      const baselines = new Set(results.flatMap((result) => Object.keys(result.baselines)));
      expect([...baselines]).toEqual(expected[suite]!.baselines);
      for (const result of results) {
        const { name, payloadBytes, unit, median, min, max, baselines, ...more } = result;
        expect(more).toEqual({});
        expect(payloadBytes).toBeGreaterThan(0);
        expect(unit).toMatch(/^(messages\/s|calls\/s|µs|ms|s|MiB|per 1,000 messages)$/);
        expect([min, median, max]).toEqual([min, median, max].sort((a, b) => a - b));
        // A short run may need no statement of the senders.
        if (!name.startsWith("sender statements")) expect(min).toBeGreaterThan(0);
        for (const baseline of Object.values(baselines)) {
          expect(baseline).toEqual({ median: expect.any(Number), ratio: expect.any(Number) });
          expect(baseline.median).toBeGreaterThan(0);
        }
      }
    },
    timeoutMs,
  );
});
