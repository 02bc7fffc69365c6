/**
 * Metrics: a table in `generated/ts/metrics/` says which there are, and a function for each reads its time series from
 * the numbers of the program. A time series that is not read is not exported.
 */
import type { LabelsOf, Metric } from "../../../generated/ts/metrics/metrics.js";

export type Labels = Readonly<Record<string, string>>;

/** Counted values by the buckets of a metric. */
export class Histogram {
  /** Upper bounds of the buckets, ascending. */
  readonly bounds: readonly number[];
  /** Number of values in each bucket, not cumulative; the last number is that of the values above all bounds. */
  readonly buckets: number[];
  /** Sum of the values. */
  sum = 0;

  /** @param metric bounds of the buckets, in the unit of the values */
  constructor({ buckets }: { readonly buckets: readonly number[] }) {
    this.bounds = buckets;
    this.buckets = new Array<number>(buckets.length + 1).fill(0);
  }

  /** Counts a value. A value that equals a bound belongs to the bucket below. */
  observe(value: number): void {
    let index = 0;
    while (index < this.bounds.length && value > this.bounds[index]!) index += 1;
    this.buckets[index]! += 1;
    this.sum += value;
  }

  /** Adds the values of a histogram with the same buckets. */
  add({ buckets, sum }: Histogram): void {
    for (const [index, count] of buckets.entries()) this.buckets[index]! += count;
    this.sum += sum;
  }
}

/** Labels and the value of a time series. */
type Sample<Of extends Metric> = readonly [
  labels: LabelsOf<Of>,
  value: Of["type"] extends "histogram" ? Histogram : number,
];

/** Function that reads the time series of each metric of a table. */
export type Readers<Table extends Readonly<Record<string, Metric>>, Source> = {
  readonly [Name in keyof Table]: (source: Source) => readonly Sample<Table[Name]>[];
};

/** Metric with its time series at the time of a reading. */
export interface MetricFamily extends Pick<Metric, "name" | "type" | "help"> {
  readonly samples: readonly (readonly [labels: Labels, value: number | Histogram])[];
}

/** Reads all metrics of a table, in its order. @throws the error of a reader */
export function readMetrics<Source>(
  table: Readonly<Record<string, Metric>>,
  readers: Readonly<Record<string, (source: Source) => MetricFamily["samples"]>>,
  source: Source,
): MetricFamily[] {
  return Object.values(table).map(({ name, type, help }) => ({ name, type, help, samples: readers[name]!(source) }));
}

/** Adds labels that all time series have. */
export function labelled(families: readonly MetricFamily[], common: Labels): MetricFamily[] {
  return families.map((family) => ({
    ...family,
    samples: family.samples.map(([labels, value]) => [{ ...labels, ...common }, value] as const),
  }));
}

/**
 * Makes readers of metrics with one time series for each item, such as for each subscription.
 *
 * @param itemsOf items of a source
 * @param labelsOf labels of an item's time series
 */
export function perItem<Source, Item, ItemLabels extends Labels>(
  itemsOf: (source: Source) => readonly Item[],
  labelsOf: (item: Item) => ItemLabels,
) {
  return <Value extends number | Histogram>(valueFor: (item: Item, source: Source) => Value) =>
    (source: Source): (readonly [labels: ItemLabels, value: Value])[] =>
      itemsOf(source).map((item) => [labelsOf(item), valueFor(item, source)] as const);
}

/**
 * Makes readers of metrics with one time series for each outcome of each item.
 *
 * @param itemsOf items of a source
 * @param labelsOf labels of an item's time series, without `outcome`
 */
export function perOutcome<Source, Item, ItemLabels extends Labels>(
  itemsOf: (source: Source) => readonly Item[],
  labelsOf: (item: Item) => ItemLabels,
) {
  return <Outcome extends string>(totalsOf: (item: Item) => Readonly<Record<Outcome, number>>) =>
    (source: Source) =>
      itemsOf(source).flatMap((item) => {
        const totals = totalsOf(item);
        const outcomes = Object.keys(totals) as Outcome[];
        return outcomes.map((outcome) => [{ ...labelsOf(item), outcome }, totals[outcome]] as const);
      });
}
