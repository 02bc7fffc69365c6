/**
 * The results as other programs read them.
 */
import { closeSync, openSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { CliError } from "../src/errors/index.js";
import type { BenchRecord } from "./record.js";
import { ratioOf, type Summary, summarize } from "./statistics.js";
import type { Measured } from "./suite.js";

/** What `--json` writes. */
export interface BenchReport {
  readonly suite: string;
  /** The version of node, such as `v20.20.2`. */
  readonly node: string;
  /** How many processors this process may use. */
  readonly cpus: number;
  readonly results: readonly BenchResult[];
}

/** One thing measured with one payload size. */
export interface BenchResult extends Summary {
  /** With the variant, if there is one: `throughput, 100 channels`. */
  readonly name: string;
  readonly payloadBytes: number;
  readonly unit: string;
  readonly baselines: Readonly<Record<string, BaselineResult>>;
}

/** A baseline of the same run. */
export interface BaselineResult {
  readonly median: number;
  /** How much better we are, by the medians: above 1 is better, for a latency too. */
  readonly ratio: number;
}

/** Digits that a measurement can stand for. */
const significantDigits = 6;

/** The report of a suite. */
export function reportOf(suite: string, measured: readonly Measured[]): BenchReport {
  return { suite, node: process.version, cpus: availableParallelism(), results: measured.map(resultOf) };
}

/** One measurement in numbers. */
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

/** Finds out before the measuring whether the file can be written. @throws CliError `invalid_argument` */
export function canWriteReport(file: string): void {
  try {
    closeSync(openSync(file, "a"));
  } catch (cause) {
    throw new CliError("invalid_argument", `--json ${file}: the file cannot be written.`, { cause });
  }
}

/** Writes a report, or the record of all suites. */
export function writeReport(file: string, report: BenchReport | BenchRecord): void {
  writeFileSync(file, `${JSON.stringify(report, undefined, 2)}\n`);
}

function rounded(value: number): number {
  return Number(value.toPrecision(significantDigits));
}
