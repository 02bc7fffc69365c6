/**
 * What is said of a series of runs.
 */

/** Which of two values is the better one. */
export type Better = "higher" | "lower";

/** The middle of a series and how far it reaches. */
export interface Summary {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** The value in the middle; of an even number of values, the mean of the two in the middle. NaN without any. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const upper = sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
  const lower = sorted[Math.ceil(sorted.length / 2) - 1] ?? Number.NaN;
  return (lower + upper) / 2;
}

/** @throws RangeError for an empty series */
export function summarize(values: readonly number[]): Summary {
  if (values.length === 0) throw new RangeError("there is nothing to summarize: no run was made");
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) };
}

/** How much better we are than a baseline: above 1 is better, whichever way the unit goes. */
export function ratioOf(ours: number, baseline: number, better: Better): number {
  return better === "higher" ? ours / baseline : baseline / ours;
}
