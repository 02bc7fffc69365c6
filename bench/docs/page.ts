/**
 * The page with all results, in Markdown.
 */
import type { BenchRecord, SuiteRecord } from "../record.js";
import { ratioOf, summarize } from "../statistics.js";
import type { Measured, Suite } from "../suite.js";
import { formatValue, rowHeading, rowLabel } from "../tables.js";
import { verdictsOf } from "../targets.js";
import { chartFile, chartOf } from "./charts.js";

/** The whole page. `charts` is the folder of the pictures, relative to it. */
export function pageOf(record: BenchRecord, suites: readonly Suite[], charts: string): string {
  const parts = record.suites.flatMap((suiteRecord) => {
    const suite = suites.find(({ name }) => name === suiteRecord.suite);
    return suite === undefined ? [] : [{ suite, suiteRecord }];
  });
  const sections = [
    "<!-- Written by `npm run bench -- all --write-docs`. Do not edit. -->",
    "# Benchmarks",
    introduction(record),
    "## Targets",
    targetsTable(parts),
    ...parts.flatMap(({ suite, suiteRecord }) => sectionsOf(suite, suiteRecord, charts)),
  ];
  return `${sections.filter((section) => section !== "").join("\n\n")}\n`;
}

function introduction({ date, node, cpus, memoryGiB, versions }: BenchRecord): string {
  return `Measured on ${date} with ${["Node " + node.replace(/^v/, ""), ...versions].join(", ")}, on a machine with ${cpus} processors and
${memoryGiB} GiB of memory, which the servers and all processes share. Everything on this page is written by the benchmark.

\`\`\`sh
npm run bench -- all --write-docs --json results.json   # measures, and writes this page and its charts
npm run bench -- --write-docs --from results.json       # writes them again
npm run bench -- peer-live                              # one suite
\`\`\`

**How to read it.** Numbers of two machines, or of two days, say little about each other; ratios of one run do. So
Hawser and its baselines take turns, each round in another order, after a warm-up. Tables show the median of the runs
and, in brackets, the least and the greatest. A **ratio** is how much better Hawser's median is than the baseline's:
above 1 is better, for a time as well as for a throughput. Thin lines in the charts reach from the least to the
greatest run.

**What it does not say.** Handlers here do nothing, all connections are loopback, and nothing else runs on the machine.
In an application the handler, the network or the disk is often what takes the time. The baselines are there to compare
mechanisms, and many of them do something else, too, or less; each section says what.`;
}

function targetsTable(parts: readonly { suite: Suite; suiteRecord: SuiteRecord }[]): string {
  const rows = parts.flatMap(({ suite, suiteRecord }) =>
    verdictsOf(suite.targets, suiteRecord.results).map(({ target, measured, met }) => [
      `\`${suite.name}\``,
      target,
      measured,
      met ? "met" : "**missed**",
    ]),
  );
  return markdownTable(["suite", "target", "measured", ""], rows, ["left", "left", "right", "left"]);
}

function sectionsOf(suite: Suite, { results, notes }: SuiteRecord, charts: string): string[] {
  const names = [...new Set(results.map(({ name }) => name))];
  const pictures = suite.page.charts.flatMap((plan) =>
    chartOf(plan, results) === undefined ? [] : [`![${plan.title}](${charts}/${chartFile(suite, plan)})`],
  );
  return [
    `## ${suite.page.title}`,
    `\`npm run bench -- ${suite.name}\``,
    suite.page.text,
    ...pictures,
    ...names.map((name) => tableOf(results.filter((result) => result.name === name))),
    notes.map((note) => `- ${note}`).join("\n"),
  ];
}

/** The table of one thing that was measured. */
function tableOf(measured: readonly Measured[]): string {
  const { name, unit } = measured[0]!;
  const baselines = [...new Set(measured.flatMap((each) => each.baselines.map((baseline) => baseline.name)))];
  const head = [rowHeading(measured), `${name}, ${unit}`, ...baselines.flatMap((baseline) => [baseline, "ratio"])];
  const rows = measured.map((each) => [
    rowLabel(each),
    spread(each.samples),
    ...baselines.flatMap((baseline) => {
      const theirs = each.baselines.find((one) => one.name === baseline)?.samples;
      return theirs === undefined ? ["", ""] : [spread(theirs), ratioCell(each, theirs)];
    }),
  ]);
  return markdownTable(
    head,
    rows,
    head.map((_, column) => (column === 0 ? "left" : "right")),
  );
}

function ratioCell({ samples, better }: Measured, theirs: readonly number[]): string {
  return `${ratioOf(summarize(samples).median, summarize(theirs).median, better).toFixed(2)}×`;
}

function spread(samples: readonly number[]): string {
  const { median, min, max } = summarize(samples);
  return min === max ? formatValue(median) : `${formatValue(median)} (${formatValue(min)} – ${formatValue(max)})`;
}

function markdownTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  alignments: readonly ("left" | "right")[],
): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  const rule = alignments.map((alignment) => (alignment === "left" ? "---" : "---:"));
  return [line(head), line(rule), ...rows.map(line)].join("\n");
}
