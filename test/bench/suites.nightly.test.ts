/**
 * The bench as a command, on the servers of the tests: all of its suites measure, in little time.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, inject, it } from "vitest";
import { variables } from "../../bench/baselines.js";
import { sinceNats } from "../../bench/live/ways.js";
import { withRatios } from "../../bench/page.js";
import { type BenchRecord, resultOf } from "../../bench/report.js";
import { suites } from "../../bench/suites.js";
import { natsServerIsFrom } from "../support/nats-server.js";
import { startProgram } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";

/** On the servers of the tests, without the baselines that need a program of their own, even where these are set. */
const env = {
  HAWSER_DATABASE_URL: inject("databaseUrl"),
  HAWSER_NATS_URL: inject("natsUrl"),
  ...Object.fromEntries(Object.keys(variables).map((name) => [name, undefined])),
};

// What starts up to seven processes at a time may take long on a busy machine.
it("the bench measures all suites beside their baselines", { timeout: 1_800_000 }, async () => {
  const file = join(temporaryDirectory(), "all.json");
  const { status, stderr } = await startProgram("bench/main.ts", ["all", "--quick", "--json", file], { env }).ended;
  expect(status, stderr).toBe(0);
  const record = JSON.parse(readFileSync(file, "utf8")) as BenchRecord;
  expect(record.suites.map(({ suite }) => suite)).toEqual(suites.map(({ name }) => name));
  for (const { suite, results } of record.suites) {
    expect(results, suite).not.toEqual([]);
    for (const { name, min, median, max, baselines } of results.map(resultOf)) {
      expect([min, median, max], name).toEqual([min, median, max].toSorted((a, b) => a - b));
      // A short run may need no statement of the senders.
      if (!name.startsWith("sender statements")) expect(min, name).toBeGreaterThan(0);
      for (const baseline of Object.values(baselines)) expect(baseline.median, name).toBeGreaterThan(0);
    }
  }
  // Each published ratio was measured.
  const page = withRatios(readFileSync("README.md", "utf8"), record);
  const missing = [...page.matchAll(/^\|[^|]*\| ([^|]*) \| not measured/gm)].map(([, alternative]) => alternative);
  const hasFastIngest = await natsServerIsFrom(`2.${sinceNats["jetstream fast ingest"]}`);
  const jetStream = hasFastIngest ? [] : ["JetStream on disk, at its fastest"];
  expect(missing).toEqual([...jetStream, "River", "pgmq, SQL alone"]);
});
