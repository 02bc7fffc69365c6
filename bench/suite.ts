/**
 * The interface of a suite: a set of measurements that are printed and written together.
 */
import type { Better } from "./measure.js";

/** A suite. To add one: write it in a folder of its own, as `ping-pong/` is, and put it into `suites.ts`. */
export interface Suite {
  /** Name on the command line. */
  readonly name: string;
  /** Description for the help, in one line. */
  readonly summary: string;
  /** Approximate duration in seconds. A suite with adjustable run lengths keeps to it: see `endBy`. */
  readonly seconds: number;
  readonly page: SuitePage;
  /** Targets for the results. */
  readonly targets: readonly Target[];
  /**
   * Measures. What it starts has ended when the promise settles, also when the signal aborts it; then it rejects with
   * the signal's reason.
   */
  run(context: SuiteContext): Promise<SuiteOutcome>;
}

/** Limits and callbacks of a suite's run. Serves as the options of a worker, too. */
export interface SuiteContext {
  /** Aborted when the run is to stop. */
  readonly signal: AbortSignal;
  /** Time by which the run should have ended, in ms of `performance.now()`. */
  readonly endBy: number;
  /** A short run with little work: everything is done once, and the numbers mean nothing. */
  readonly quick: boolean;
  /** The checkout whose Hawser is measured, as the URL of its folder. */
  readonly source: string;
  /** Number of rounds for a suite that normally makes `full`: fewer if two checkouts take turns. */
  rounds(full: number): number;
  /** Reports progress. */
  say(message: string): void;
}

/** Results of a suite's run. */
export interface SuiteOutcome {
  readonly results: readonly Measured[];
  /** Facts that a reader needs to judge the numbers; printed below the tables. */
  readonly notes: readonly string[];
  /** Versions of the servers, such as `Postgres 18.4`. */
  readonly servers: readonly string[];
}

/** Samples of one measurement with one payload size, and its baselines. */
export interface Measured {
  /** Name of the measurement, such as `at-most-once`. */
  readonly name: string;
  readonly payloadBytes: number;
  /** The varied parameter if other than the payload size, such as `100 channels`. */
  readonly variant?: string;
  /** Unit of the samples, such as `messages/s`. */
  readonly unit: string;
  /** Direction of improvement: higher for a throughput, lower for a latency. */
  readonly better: Better;
  /** Values by run, at least one. */
  readonly samples: readonly number[];
  /** The baselines' values for each run, in the same unit. */
  readonly baselines: readonly Baseline[];
}

/** Samples that a result is compared with. */
export interface Baseline {
  readonly name: string;
  readonly samples: readonly number[];
}

/** A goal for a result: a median of ours, or its multiple of a baseline's median. */
export interface Target {
  /** The result's name, payload size and variant. */
  readonly name: string;
  readonly payloadBytes: number;
  readonly variant?: string;
  /** Baseline whose ratio to ours is judged; undefined to judge our value itself. */
  readonly baseline?: string;
  /** Bounds of the ratio or value, exactly one of the two: `atLeast` for a throughput, `atMost` for a latency. */
  readonly atLeast?: number;
  readonly atMost?: number;
}

/** Text and charts for a suite on the generated page, in Markdown. */
export interface SuitePage {
  readonly title: string;
  /** Method, setup of the baselines and limits of the comparison; independent of the measured numbers. */
  readonly text: string;
  readonly charts: readonly ChartPlan[];
}

/** A picture of some of the results, which have one unit. */
export interface ChartPlan {
  readonly title: string;
  /** The names of the results. */
  readonly results: readonly string[];
  /** Logarithmic axis, for values of different magnitude. Default: linear from zero. */
  readonly scale?: "logarithmic";
}

/** A benchmark that could not be finished, or whose numbers would mean nothing. The message says all; no stack is shown. */
export class BenchFailure extends Error {
  static override readonly name = "BenchFailure";
}
