/**
 * Output of results: tables for people, JSON for programs, the saved record of a run of all suites, and whether the targets
 * are met.
 */
import { closeSync, existsSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism, totalmem } from "node:os";
import { HawserError } from "../src/foundation/errors/index.js";
import { median, ratioOf, type Summary, summarize } from "./measure.js";
import type { Measured, Suite, SuiteOutcome, Target } from "./suite.js";

/** Content of the file that `--json` writes. */
export interface BenchReport {
  readonly suite: string;
  /** The version of node, such as `v20.20.2`. */
  readonly node: string;
  /** Processors that this process may use. */
  readonly cpus: number;
  readonly results: readonly BenchResult[];
}

/** Result of one measurement with one payload size. */
export interface BenchResult extends Summary {
  /** Name and variant, if there is one: `throughput, 100 channels`. */
  readonly name: string;
  readonly payloadBytes: number;
  readonly unit: string;
  readonly baselines: Readonly<Record<string, BaselineResult>>;
}

/** A baseline of the same run. */
export interface BaselineResult {
  readonly median: number;
  /** Ratio of the medians: above 1, Hawser is better, for a latency too. */
  readonly ratio: number;
}

/** The baseline that is Hawser in another checkout. */
export const beforeName = "before";

/** Digits that a measurement can stand for. */
const significantDigits = 6;

/** The report of a suite. */
export function reportOf(suite: string, measured: readonly Measured[]): BenchReport {
  return { suite, node: process.version, cpus: availableParallelism(), results: measured.map(resultOf) };
}

/** Summary of a measurement, with its ratios to the baselines. */
export function resultOf({ name, variant, payloadBytes, unit, better, samples, baselines }: Measured): BenchResult {
  const ours = summarize(samples);
  return {
    name: variant === undefined ? name : `${name}, ${variant}`,
    payloadBytes,
    unit,
    median: rounded(ours.median),
    min: rounded(ours.min),
    max: rounded(ours.max),
    baselines: Object.fromEntries(
      baselines.map((baseline) => {
        const theirs = summarize(baseline.samples).median;
        return [baseline.name, { median: rounded(theirs), ratio: rounded(ratioOf(ours.median, theirs, better)) }];
      }),
    ),
  };
}

/** Finds out before the measuring whether the file can be written. @throws HawserError `invalid_argument` */
export function canWriteReport(file: string): void {
  try {
    closeSync(openSync(file, "a"));
  } catch (cause) {
    throw new HawserError("invalid_argument", `--json ${file}: the file cannot be written.`, { cause });
  }
}

/** Writes a report, or the record of all suites. */
export function writeReport(file: string, report: BenchReport | BenchRecord): void {
  writeFileSync(file, `${JSON.stringify(report, undefined, 2)}\n`);
}

function rounded(value: number): number {
  return Number(value.toPrecision(significantDigits));
}

/** The record of a run of all suites. */
export interface BenchRecord {
  /** The day, as YYYY-MM-DD in UTC. */
  readonly date: string;
  /** Only tried out: the numbers mean nothing. */
  readonly quick: boolean;
  /** The version of node, such as `v20.20.2`. */
  readonly node: string;
  /** Processors that this process may use. */
  readonly cpus: number;
  readonly memoryGiB: number;
  /** Versions of the servers and baselines, such as `Postgres 18.4`. */
  readonly versions: readonly string[];
  /** The commit that was measured, and the other one that took turns with it, if there was one. */
  readonly commit: string;
  readonly before?: string;
  readonly suites: readonly SuiteRecord[];
}

/** Results of one suite in a {@link BenchRecord}. */
export interface SuiteRecord {
  readonly suite: string;
  readonly results: readonly Measured[];
  readonly notes: readonly string[];
}

/** The record of outcomes that were just found, and before them those of an earlier run that was stopped. */
export function recordOf(
  outcomes: readonly { readonly suite: Suite; readonly outcome: SuiteOutcome }[],
  of: Pick<BenchRecord, "quick" | "commit" | "before">,
  earlier?: BenchRecord,
): BenchRecord {
  return {
    date: new Date().toISOString().slice(0, 10),
    ...of,
    node: process.version,
    cpus: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    versions: [...new Set([...(earlier?.versions ?? []), ...outcomes.flatMap(({ outcome }) => outcome.servers)])],
    suites: [
      ...(earlier?.suites ?? []),
      ...outcomes.map(({ suite, outcome: { results, notes } }) => ({ suite: suite.name, results, notes })),
    ],
  };
}

/** The saved record, if it is of the same commits; undefined if there is none, or if a commit has changes beside it. */
export function readEarlier(
  file: string,
  { commit, before }: Pick<BenchRecord, "commit" | "before">,
): BenchRecord | undefined {
  if (!existsSync(file) || `${commit} ${before}`.includes("-dirty")) return undefined;
  try {
    const earlier = readRecord(file);
    const { node, cpus, memoryGiB } = recordOf([], { quick: false, commit });
    const isSame =
      earlier.commit === commit &&
      earlier.before === before &&
      earlier.node === node &&
      earlier.cpus === cpus &&
      earlier.memoryGiB === memoryGiB;
    return isSame ? earlier : undefined;
  } catch {
    return undefined;
  }
}

/** Reads a saved one. @throws HawserError `invalid_argument` */
export function readRecord(file: string): BenchRecord {
  let read: Partial<BenchRecord> | null;
  try {
    read = JSON.parse(readFileSync(file, "utf8"));
  } catch (cause) {
    throw new HawserError("invalid_argument", `--from ${file}: the file cannot be read as JSON.`, { cause });
  }
  if (!Array.isArray(read?.suites)) {
    throw new HawserError("invalid_argument", `--from ${file}: it is not what \`npm run bench -- all --json\` writes.`);
  }
  if (read.quick) {
    throw new HawserError("invalid_argument", `--from ${file}: it was made with --quick, so its numbers mean nothing.`);
  }
  return read as BenchRecord;
}

/** All tables of a suite. */
export function tablesOf(measured: readonly Measured[]): string {
  const names = [...new Set(measured.map(({ name }) => name))];
  return names.map((name) => tableOf(measured.filter((each) => each.name === name))).join("\n\n");
}

/** The table of one thing, measured with one payload size or more. */
function tableOf(measured: readonly Measured[]): string {
  const { name, unit, better } = measured[0]!;
  const results = measured.map(resultOf);
  const baselines = [...new Set(results.flatMap((result) => Object.keys(result.baselines)))];
  const head = [rowHeading(measured), name, "min", "max", ...baselines.flatMap((baseline) => [baseline, "ratio"])];
  const rows = results.map((result, index) => [
    rowLabel(measured[index]!),
    formatValue(result.median),
    formatValue(result.min),
    formatValue(result.max),
    ...baselines.flatMap((baseline) => {
      const theirs = result.baselines[baseline];
      return theirs === undefined ? ["", ""] : [formatValue(theirs.median), `${theirs.ratio.toFixed(2)}×`];
    }),
  ]);
  const ratio = better === "higher" ? `${name} over the baseline` : `the baseline over ${name}`;
  return `${unit}, medians; ratio: ${ratio}, above 1 is better\n${aligned([head, ...rows])}`;
}

/** Heading of a table's first column: "case" if a variant is among the results, else "payload". */
export function rowHeading(measured: readonly Measured[]): string {
  return measured.some(({ variant }) => variant !== undefined) ? "case" : "payload";
}

/** Label of a result's row: its variant, or else its payload size. */
export function rowLabel({ variant, payloadBytes }: Pick<Measured, "variant" | "payloadBytes">): string {
  return variant ?? formatBytes(payloadBytes);
}

/** Columns side by side, flush right. */
function aligned(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padStart(widths[column]!))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** A size as people say it: 10 B, 1 KiB. */
export function formatBytes(bytes: number): string {
  if (bytes >= 1 << 20 && bytes % (1 << 20) === 0) return `${bytes / (1 << 20)} MiB`;
  return bytes >= 1024 && bytes % 1024 === 0 ? `${bytes / 1024} KiB` : `${bytes} B`;
}

/** Thousands apart; decimals only where there is little before them. */
export function formatValue(value: number): string {
  return value.toLocaleString("en-US", { maximumFractionDigits: value < 100 ? 2 : 0 });
}

/** Result of a comparison with a target. */
export interface Verdict {
  /** Description of the target, such as `at-most-once, 100 B: at least 3× nats-core`. */
  readonly target: string;
  /** The measured value or ratio, such as `4.54×`. */
  readonly measured: string;
  readonly met: boolean;
}

/** Looks at each target whose result is there. */
export function verdictsOf(targets: readonly Target[], results: readonly Measured[]): Verdict[] {
  return targets.flatMap((target) => {
    const result = results.find(
      ({ name, payloadBytes, variant }) =>
        name === target.name && payloadBytes === target.payloadBytes && variant === target.variant,
    );
    const baseline = result?.baselines.find(({ name }) => name === target.baseline);
    if (result === undefined || (target.baseline !== undefined && baseline === undefined)) return [];
    return [verdictOf(target, result, baseline?.samples)];
  });
}

function verdictOf(target: Target, result: Measured, theirs: readonly number[] | undefined): Verdict {
  const ours = median(result.samples);
  const actual = theirs === undefined ? ours : ours / median(theirs);
  const { atLeast = Number.NEGATIVE_INFINITY, atMost = Number.POSITIVE_INFINITY } = target;
  const words = theirs === undefined ? valueWords(target, result.unit) : multipleWords(target);
  return {
    target: `${result.name}, ${rowLabel(result)}: ${words.target}`,
    measured: words.measured(actual),
    met: actual >= atLeast && actual <= atMost,
  };
}

interface Words {
  readonly target: string;
  readonly measured: (actual: number) => string;
}

function valueWords({ atLeast, atMost }: Target, unit: string): Words {
  const target = atLeast === undefined ? `at most ${formatValue(atMost!)}` : `at least ${formatValue(atLeast)}`;
  return { target: `${target} ${unit}`, measured: (actual) => `${formatValue(actual)} ${unit}` };
}

/** A fifth of the time is said as five times as fast. */
function multipleWords({ atLeast, atMost, baseline }: Target): Words {
  const measured = (actual: number): string => `${actual.toFixed(2)}×`;
  if (atLeast !== undefined) return { target: `at least ${formatValue(atLeast)}× ${baseline}`, measured };
  if (atMost! >= 1) return { target: `at most ${formatValue(atMost!)}× ${baseline}`, measured };
  return {
    target: `at least ${formatValue(1 / atMost!)}× as fast as ${baseline}`,
    measured: (actual) => measured(1 / actual),
  };
}
