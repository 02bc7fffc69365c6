/**
 * The page with all results, in Markdown, its charts, and the table of ratios on pages that are written by hand.
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

/** Writes `results.md` and its charts into a directory, and removes all other charts there. */
export function writeResults(directory: URL, record: BenchRecord, suites: readonly Suite[]): void {
  mkdirSync(directory, { recursive: true });
  for (const name of readdirSync(directory)) {
    if (name.endsWith(".svg")) rmSync(new URL(name, directory));
  }
  for (const { suite: name, results } of record.suites) {
    const suite = suites.find((each) => each.name === name);
    for (const plan of suite?.page.charts ?? []) {
      const chart = chartOf(plan, results);
      if (suite !== undefined && chart !== undefined) {
        writeFileSync(new URL(chartFile(suite, plan), directory), barChartSvg(chart));
      }
    }
  }
  writeFileSync(new URL("results.md", directory), resultsPage(record, suites));
}

/** The page `results.md`. Its charts are in the same folder. */
function resultsPage(record: BenchRecord, suites: readonly Suite[]): string {
  const parts = record.suites.flatMap((suiteRecord) => {
    const suite = suites.find(({ name }) => name === suiteRecord.suite);
    return suite === undefined ? [] : [{ suite, suiteRecord }];
  });
  const sections = [
    "<!-- Written by `npm run bench -- all --write-docs`. Do not edit. -->",
    "# Results of the benchmarks",
    introduction(record),
    "## Targets",
    targetsTable(parts),
    ...parts.flatMap(({ suite, suiteRecord }) => sectionsOf(suite, suiteRecord)),
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
const jobs = {
  suite: "handlers",
  results: ["1 process", "2 processes"].map((of) => ({ result: `handled, 20,000 jobs, ${of}`, payloadBytes: 100 })),
};

interface RatioRow {
  /** An empty cell repeats the one above. */
  readonly what: string;
  readonly suite: string;
  readonly results: readonly { readonly result: string; readonly payloadBytes: number }[];
  readonly baseline: string;
  readonly alternative: string;
  /** True if the table in short lacks it. */
  readonly onlyWhole?: boolean;
}

/** The rows of the table of ratios. */
const ratioRows: readonly RatioRow[] = [
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
    onlyWhole: true,
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
  { what: "20,000 transactional jobs, 1 / 2 processes", ...jobs, baseline: "pg-boss", alternative: "pg-boss 12" },
  { what: "", ...jobs, baseline: "pg-boss by hand", alternative: "pg-boss 12, completed by hand" },
  { what: "", ...jobs, baseline: "graphile-worker by hand", alternative: "graphile-worker 0.18, completed by hand" },
  { what: "", ...jobs, baseline: "river", alternative: "River" },
  { what: "100,000 sends to an absent listener, 100 B", ...total, baseline: "pg-boss", alternative: "pg-boss 12" },
  { what: "", ...total, baseline: "graphile-worker", alternative: "graphile-worker 0.18" },
  { what: "", ...total, baseline: "river", alternative: "River" },
  { what: "", ...total, baseline: "pgmq", alternative: "pgmq, SQL alone" },
];

/** Place of the table; that of a page in short has the first row of each comparison. */
const ratioBlock = /(<!-- By `npm run bench`(, in short)?. -->\n\n).*(?=\n\n<!-- End of the ratios. -->)/s;

/** A page whose table of ratios is that of a record. */
export function withRatios(page: string, { suites }: BenchRecord): string {
  const rows = ratioRows.map(({ what, suite, results: wanted, baseline, alternative, onlyWhole = false }) => {
    const results = (suites.find((each) => each.suite === suite)?.results ?? []).map(resultOf);
    const ratios = wanted.map(({ result, payloadBytes }) => {
      const measured = results.find((each) => each.name === result && each.payloadBytes === payloadBytes);
      const ratio = measured?.baselines[baseline]?.ratio;
      return ratio === undefined ? "not measured" : `${ratio.toFixed(ratio < 1 ? 2 : 1)}×`;
    });
    return { onlyWhole: what === "" || onlyWhole, cells: [what, alternative, ratios.join(" / ")] };
  });
  return page.replace(ratioBlock, (_block, head: string, inShort?: string) => {
    const shown = inShort === undefined ? rows : rows.filter(({ onlyWhole }) => !onlyWhole);
    const cells = shown.map((row) => row.cells);
    return head + markdownTable(["", "compared with", "ratio"], cells, ["left", "left", "right"]);
  });
}

function introduction({ date, node, cpus, memoryGiB, versions, commit, before }: BenchRecord): string {
  return `Measured on ${date} at commit \`${commit}\` with ${["Node " + node.replace(/^v/, ""), ...versions].join(", ")}, on a machine
with ${cpus} processors and ${memoryGiB} GiB of memory, which the servers and all processes share. [How to read these
results, and how to measure again](../benchmarks.md).${before === undefined ? "" : ` The baseline \`${beforeName}\` is Hawser at commit \`${before}\`, measured in turn with this one.`}`;
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

function sectionsOf(suite: Suite, { results, notes }: SuiteRecord): string[] {
  const names = [...new Set(results.map(({ name }) => name))];
  const pictures = suite.page.charts.flatMap((plan) =>
    chartOf(plan, results) === undefined ? [] : [`![${plan.title}](${chartFile(suite, plan)})`],
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
function chartFile({ name }: Pick<Suite, "name">, { title }: ChartPlan): string {
  const words = title.toLowerCase().match(/[a-z0-9]+/g)!;
  return `${name}-${words.join("-")}.svg`;
}

/** A chart with what was measured; undefined if nothing of it was. */
function chartOf(plan: ChartPlan, results: readonly Measured[]): BarChart | undefined {
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
