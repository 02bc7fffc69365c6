/**
 * What a suite is: a set of measurements that are printed and written together.
 */
import type { Better } from "./statistics.js";

/** A suite. To add one: write it in a folder of its own, as `peer-live/` is, and put it into `suites.ts`. */
export interface Suite {
  /** As on the command line. */
  readonly name: string;
  /** One line for the help. */
  readonly summary: string;
  /**
   * Measures. What it starts has ended when the promise settles, also when the signal aborts it; then it rejects with
   * the signal's reason.
   */
  run(context: SuiteContext): Promise<SuiteOutcome>;
}

/** What a suite is given. */
export interface SuiteContext {
  /** Aborted when somebody wants us to stop. */
  readonly signal: AbortSignal;
  /** When it should have ended, in ms of `performance.now()`: since the start of the process. */
  readonly endBy: number;
  /** Tells what is being done. */
  say(message: string): void;
}

/** What a suite found. */
export interface SuiteOutcome {
  readonly results: readonly Measured[];
  /** What a reader must know to judge the numbers: printed below the tables. */
  readonly notes: readonly string[];
}

/** One thing measured with one payload size, and its baselines. */
export interface Measured {
  /** Such as `at-most-once`. */
  readonly name: string;
  readonly payloadBytes: number;
  /** Such as `messages/s`. */
  readonly unit: string;
  /** Which of two values is the better one: higher for a throughput, lower for a latency. */
  readonly better: Better;
  /** One value for each run, at least one. */
  readonly samples: readonly number[];
  /** The baselines' values for each run, in the same unit. */
  readonly baselines: readonly { readonly name: string; readonly samples: readonly number[] }[];
}
