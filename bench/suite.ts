/**
 * What a suite is: a set of measurements that are printed and written together.
 */
import type { Better } from "./measure.js";

/** A suite. To add one: write it in a folder of its own, as `ping-pong/` is, and put it into `suites.ts`. */
export interface Suite {
  /** As on the command line. */
  readonly name: string;
  /** One line for the help. */
  readonly summary: string;
  /** How long it takes, about, in seconds. Suites whose runs can be shorter or longer keep to it: see `endBy`. */
  readonly seconds: number;
  readonly page: SuitePage;
  /** What the results should reach. */
  readonly targets: readonly Target[];
  /**
   * Measures. What it starts has ended when the promise settles, also when the signal aborts it; then it rejects with
   * the signal's reason.
   */
  run(context: SuiteContext): Promise<SuiteOutcome>;
}

/** What a suite is given. It can be handed on as the options of a worker. */
export interface SuiteContext {
  /** Aborted when the run is to stop. */
  readonly signal: AbortSignal;
  /** When it should have ended, in ms of `performance.now()`: since the start of the process. */
  readonly endBy: number;
  /** A short run with little work: everything is done once, and the numbers mean nothing. */
  readonly quick: boolean;
  /** The checkout whose Hawser is measured, as the URL of its folder. */
  readonly source: string;
  /** How many rounds to make where a whole run makes `full`: fewer where two checkouts take turns. */
  rounds(full: number): number;
  /** Tells what is being done. */
  say(message: string): void;
}

/** What a suite found. */
export interface SuiteOutcome {
  readonly results: readonly Measured[];
  /** What a reader must know to judge the numbers: printed below the tables. */
  readonly notes: readonly string[];
  /** What it ran on, such as `Postgres 18.4`. */
  readonly servers: readonly string[];
}

/** One thing measured with one payload size, and its baselines. */
export interface Measured {
  /** Such as `at-most-once`. */
  readonly name: string;
  readonly payloadBytes: number;
  /** What was varied other than the payload size, such as `100 channels`. */
  readonly variant?: string;
  /** Such as `messages/s`. */
  readonly unit: string;
  /** Which of two values is the better one: higher for a throughput, lower for a latency. */
  readonly better: Better;
  /** One value for each run, at least one. */
  readonly samples: readonly number[];
  /** The baselines' values for each run, in the same unit. */
  readonly baselines: readonly Baseline[];
}

/** What a result is compared with. */
export interface Baseline {
  readonly name: string;
  readonly samples: readonly number[];
}

/** What a result should reach: a median of ours, or its multiple of a baseline's median. */
export interface Target {
  /** The result's name, payload size and variant. */
  readonly name: string;
  readonly payloadBytes: number;
  readonly variant?: string;
  /** Ours over this baseline is meant; without one, our value itself. */
  readonly baseline?: string;
  /** For what should be high, or low: one of the two. */
  readonly atLeast?: number;
  readonly atMost?: number;
}

/** What the generated page says of a suite beside its numbers, in Markdown. */
export interface SuitePage {
  readonly title: string;
  /** What is done, how the baselines are set up, and how far the comparison goes: true for whatever the numbers are. */
  readonly text: string;
  readonly charts: readonly ChartPlan[];
}

/** A picture of some of the results, which have one unit. */
export interface ChartPlan {
  readonly title: string;
  /** The names of the results. */
  readonly results: readonly string[];
  /** One digit more for each factor of ten: where values lie far apart. Default: from zero, evenly. */
  readonly scale?: "logarithmic";
}

/** A benchmark that could not be finished, or whose numbers would mean nothing. The message says all; no stack is shown. */
export class BenchFailure extends Error {
  static override readonly name = "BenchFailure";
}
