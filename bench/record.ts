/**
 * What was found by running all suites, as it is saved: every run's value, so that the page can be written again later.
 */
import { readFileSync } from "node:fs";
import { availableParallelism, totalmem } from "node:os";
import { CliError } from "../src/errors/index.js";
import type { Measured, Suite, SuiteOutcome } from "./suite.js";

/** The record of a run of all suites. */
export interface BenchRecord {
  /** The day, as YYYY-MM-DD in UTC. */
  readonly date: string;
  /** Only tried out: the numbers mean nothing. */
  readonly quick: boolean;
  /** The version of node, such as `v20.20.2`. */
  readonly node: string;
  /** How many processors this process may use. */
  readonly cpus: number;
  readonly memoryGiB: number;
  /** What was compared with, such as `Postgres 18.4`. */
  readonly versions: readonly string[];
  readonly suites: readonly SuiteRecord[];
}

/** One suite of it. */
export interface SuiteRecord {
  readonly suite: string;
  readonly results: readonly Measured[];
  readonly notes: readonly string[];
}

/** The record of outcomes that were just found. */
export function recordOf(
  outcomes: readonly { readonly suite: Suite; readonly outcome: SuiteOutcome }[],
  { quick }: { readonly quick: boolean },
): BenchRecord {
  return {
    date: new Date().toISOString().slice(0, 10),
    quick,
    node: process.version,
    cpus: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    versions: [...new Set(outcomes.flatMap(({ outcome }) => outcome.servers))],
    suites: outcomes.map(({ suite, outcome: { results, notes } }) => ({ suite: suite.name, results, notes })),
  };
}

/** Reads a saved one. @throws CliError `invalid_argument` */
export function readRecord(file: string): BenchRecord {
  let read: Partial<BenchRecord> | null;
  try {
    read = JSON.parse(readFileSync(file, "utf8"));
  } catch (cause) {
    throw new CliError("invalid_argument", `--from ${file}: the file cannot be read as JSON.`, { cause });
  }
  if (!Array.isArray(read?.suites)) {
    throw new CliError("invalid_argument", `--from ${file}: it is not what \`npm run bench -- all --json\` writes.`);
  }
  if (read.quick) {
    throw new CliError("invalid_argument", `--from ${file}: it was made with --quick, so its numbers mean nothing.`);
  }
  return read as BenchRecord;
}
