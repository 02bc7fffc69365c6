/**
 * The page with all results, in Markdown, and its charts.
 */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { type Bar, type BarChart, barChartSvg } from "./bar-chart.js";
import { inFlightVariant } from "./latencies.js";
import { ratioOf, summarize } from "./measure.js";
import {
  type BenchRecord,
  beforeName,
  formatValue,
  resultOf,
  rowHeading,
  rowLabel,
  type SuiteRecord,
  verdictsOf,
} from "./report.js";
import type { ChartPlan, Measured, Suite } from "./suite.js";

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

const total = { suite: "offline", results: [{ result: "total", payloadBytes: 100 }] };
const durable = [100, 1024, 64 * 1024].map((payloadBytes) => ({ result: "at-least-once", payloadBytes }));
const asked = (way: string, second: string) => [
  { result: `${way}, p50, ${inFlightVariant(1)}`, payloadBytes: 100 },
  { result: `${way}, ${second}, ${inFlightVariant(64)}`, payloadBytes: 100 },
];
const calls = { suite: "rpc", results: asked("over peers", "calls") };
const requests = { suite: "ping-pong", results: asked("request", "p99") };

/** The rows of the README's table; empty cells repeat the one above. */
const readmeRows = [
  {
    what: "peer to peer, at most once, 100 B",
    suite: "peer-live",
    results: [{ result: "at-most-once", payloadBytes: 100 }],
    baseline: "nats-core",
    alternative: "nats.js, core publish",
  },
  {
    what: "peer to peer, at least once, 100 B / 1 KiB / 64 KiB",
    suite: "peer-durable",
    results: durable,
    baseline: "jetstream fast ingest",
    alternative: "JetStream on disk, at its fastest",
  },
  {
    what: "RPC, one call / calls, 64 in flight",
    ...calls,
    baseline: "connect-es",
    alternative: "connect-es, HTTP/2",
  },
  { what: "", ...calls, baseline: "grpc-js", alternative: "grpc-js" },
  { what: "", ...calls, baseline: "tRPC HTTP", alternative: "tRPC, HTTP" },
  {
    what: "`request`, one / p99, 64 in flight",
    ...requests,
    baseline: "nats.js",
    alternative: "nats.js, `request`",
  },
  { what: "", ...requests, baseline: "zeromq.js", alternative: "zeromq.js" },
  { what: "store and drain 100,000 messages, 100 B", ...total, baseline: "pg-boss", alternative: "pg-boss 12" },
  { what: "", ...total, baseline: "graphile-worker", alternative: "graphile-worker 0.17" },
  { what: "", ...total, baseline: "river", alternative: "River" },
  { what: "", ...total, baseline: "pgmq", alternative: "pgmq, SQL alone" },
];

const readmeBlock = /(?<=<!-- By `npm run bench`. -->\n\n).*(?=\n\n<!-- End of the ratios. -->)/s;

/** The README with the ratios of a record. */
export function readmeOf(readme: string, { suites }: BenchRecord): string {
  const rows = readmeRows.map(({ what, suite, results: wanted, baseline, alternative }) => {
    const results = (suites.find((each) => each.suite === suite)?.results ?? []).map(resultOf);
    const ratios = wanted.map(({ result, payloadBytes }) => {
      const measured = results.find((each) => each.name === result && each.payloadBytes === payloadBytes);
      const ratio = measured?.baselines[baseline]?.ratio;
      return ratio === undefined ? "not measured" : `${ratio.toFixed(ratio < 1 ? 2 : 1)}×`;
    });
    return [what, alternative, ratios.join(" / ")];
  });
  return readme.replace(readmeBlock, () =>
    markdownTable(["", "compared with", "ratio"], rows, ["left", "left", "right"]),
  );
}

function introduction({ date, node, cpus, memoryGiB, versions, commit, before }: BenchRecord): string {
  return `Measured on ${date} at commit \`${commit}\` with ${["Node " + node.replace(/^v/, ""), ...versions].join(", ")}, on a machine
with ${cpus} processors and ${memoryGiB} GiB of memory, which the servers and all processes share. Everything on this page is
written by the benchmark; \`npm run bench -- --help\` says which variables name the baselines that do not come with it.

\`\`\`sh fragment
npm run bench -- all --write-docs --json results.json   # measures, and writes this page and its charts
npm run bench -- --write-docs --from results.json       # writes them again
npm run bench -- peer-live                              # one suite
npm run bench -- peer-live --against ../other-checkout  # this Hawser and that of another checkout, in turn
\`\`\`

**How to read it.** Numbers of two machines, or of two days, say little about each other; ratios of one run do. So
Hawser and its baselines take turns, each round in another order, after a warm-up. Tables show the median of the runs
and, in brackets, the least and the greatest. A **ratio** is how much better Hawser's median is than the baseline's:
above 1 is better, for a time as well as for a throughput. Thin lines in the charts reach from the least to the
greatest run.${before === undefined ? "" : ` The baseline \`${beforeName}\` is Hawser at commit \`${before}\`, measured in turn with this one.`}

**What it does not say.** Handlers here do nothing, or write one row, all connections are loopback, and nothing else runs on
the machine.
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

/** The name of a chart's file. */
export function chartFile({ name }: Pick<Suite, "name">, { title }: ChartPlan): string {
  const words = title.toLowerCase().match(/[a-z0-9]+/g)!;
  return `${name}-${words.join("-")}.svg`;
}

/** A chart with what was measured; undefined if nothing of it was. */
export function chartOf(plan: ChartPlan, results: readonly Measured[]): BarChart | undefined {
  const drawn = results.filter(({ name }) => plan.results.includes(name));
  const [first] = drawn;
  if (first === undefined) return undefined;
  return {
    title: plan.title,
    unit: first.unit,
    better: first.better,
    scale: plan.scale ?? "linear",
    groups: drawn.map((measured) => ({
      label: plan.results.length === 1 ? rowLabel(measured) : resultOf(measured).name,
      bars: [
        barOf("Hawser", measured.samples, true),
        ...measured.baselines.map(({ name, samples }) => barOf(name, samples, false)),
      ],
    })),
  };
}

function barOf(label: string, samples: readonly number[], ours: boolean): Bar {
  return { label, ...summarize(samples), ours };
}
