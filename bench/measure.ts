/**
 * Measuring several ways of doing the same work so that they can be compared: warmed up, by turns, each turn in another
 * order, so that a machine that is busy for a while, or garbage that one leaves for the next, is shared by all. And what
 * is said of a series of runs.
 */

/** An implementation that is measured against others. */
export interface Contender {
  readonly name: string;
  /** Does `amount` units of work. @returns how long it took, in seconds */
  run(amount: number): Promise<number>;
}

/** Rounds, run length and warm-up of a measurement. */
export interface SideBySideOptions {
  /** The runs of each that count. */
  readonly rounds: number;
  /** Target length of one run in seconds; determines the amount of work. */
  readonly secondsPerRun: number;
  /** The amount of work to begin with. */
  readonly firstAmount: number;
  /**
   * Seconds of the warm-up of each contender, at least: a slow one would otherwise be measured before V8 has compiled what it
   * calls most. Default 0.
   */
  readonly warmUpSeconds?: number;
  readonly signal: AbortSignal;
}

/** Runs before those that count, at most: fewer where the second one already takes long enough. */
const warmUpRuns = 4;

/** Approximate cost of a contender's warm-up, in runs: the amount of work doubles until one run reaches its full length. */
export const warmUpCost = 2;

/**
 * Measures.
 *
 * @returns for each contender by its name, for each round, units of work a second
 * @throws the signal's reason, between two runs
 */
export async function measureSideBySide(
  contenders: readonly Contender[],
  options: SideBySideOptions,
): Promise<Map<string, number[]>> {
  const amounts = new Map<string, number>();
  for (const contender of contenders) amounts.set(contender.name, await warmUp(contender, options));
  const rates = new Map<string, number[]>(contenders.map(({ name }) => [name, []]));
  for (let round = 0; round < options.rounds; round++) {
    for (const contender of orderOf(contenders, round)) {
      options.signal.throwIfAborted();
      const amount = amounts.get(contender.name)!;
      const rate = amount / (await contender.run(amount));
      rates.get(contender.name)!.push(rate);
      amounts.set(contender.name, amountFor(rate, options));
    }
  }
  return rates;
}

/** Rotated by one more each round, and every other round backwards, so that none always follows the same one. */
export function orderOf<T>(contenders: readonly T[], round: number): T[] {
  const begin = round % contenders.length;
  const rotated = [...contenders.slice(begin), ...contenders.slice(0, begin)];
  return round % 2 === 0 ? rotated : rotated.reverse();
}

/** Runs until the code is hot. @returns the amount of work for one run's time */
async function warmUp(contender: Contender, options: SideBySideOptions): Promise<number> {
  const { warmUpSeconds = 0 } = options;
  let amount = options.firstAmount;
  let total = 0;
  for (let run = 1; run <= warmUpRuns || total < warmUpSeconds; run++) {
    options.signal.throwIfAborted();
    const seconds = await contender.run(amount);
    total += seconds;
    const next = amountFor(amount / seconds, options);
    if (run > 1 && seconds > options.secondsPerRun / 2 && total >= warmUpSeconds) return next;
    // Cold code is slow: what it managed says little of what it will.
    amount = Math.min(next, amount * 8);
  }
  return amount;
}

function amountFor(rate: number, { secondsPerRun }: SideBySideOptions): number {
  return Math.max(1, Math.round(rate * secondsPerRun));
}

/** Direction in which values improve. */
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

/** Ratio of our value to a baseline's: above 1 is better for each unit, whether higher or lower values are better. */
export function ratioOf(ours: number, baseline: number, better: Better): number {
  // Avoids 0/0 if both are 0.
  if (ours === baseline) return 1;
  return better === "higher" ? ours / baseline : baseline / ours;
}

/** Percentile in µs of ascending values in ms. */
export function percentileUs(ascending: Float64Array, share: number): number {
  return ascending[Math.min(ascending.length - 1, Math.floor(ascending.length * share))]! * 1000;
}
