/**
 * Writes the page with all results and its charts.
 */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import type { BenchRecord } from "../record.js";
import type { Suite } from "../suite.js";
import { barChartSvg } from "./bar-chart.js";
import { chartFile, chartOf } from "./charts.js";
import { pageOf } from "./page.js";

/** The folder of the charts beside the page. */
const charts = "benchmarks";

/** Writes `benchmarks.md` and `benchmarks/*.svg` in a directory; charts that are not made any more go. */
export function writeDocs(directory: URL, record: BenchRecord, suites: readonly Suite[]): void {
  const chartsDirectory = new URL(`${charts}/`, directory);
  mkdirSync(chartsDirectory, { recursive: true });
  for (const name of readdirSync(chartsDirectory)) {
    if (name.endsWith(".svg")) rmSync(new URL(name, chartsDirectory));
  }
  for (const { suite: name, results } of record.suites) {
    const suite = suites.find((each) => each.name === name);
    for (const plan of suite?.page.charts ?? []) {
      const chart = chartOf(plan, results);
      if (suite !== undefined && chart !== undefined) {
        writeFileSync(new URL(chartFile(suite, plan), chartsDirectory), barChartSvg(chart));
      }
    }
  }
  writeFileSync(new URL("benchmarks.md", directory), pageOf(record, suites, charts));
}
