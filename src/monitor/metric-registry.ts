/**
 * Metrics of one page, defined by the entries of a table in `generated/ts/metrics/`.
 *
 * Most numbers belong to other parts of the process and are read at each scrape. A time series that `read` does not
 * return is not on the page.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, type MetricValueWithName, Registry } from "prom-client";
import type { LabelsOf, Metric } from "../../generated/ts/metrics/metrics.js";
import type { Reading } from "../runtime/index.js";

type CounterMetric = Metric & { readonly type: "counter" };
type GaugeMetric = Metric & { readonly type: "gauge" };
type HistogramMetric = Metric & { readonly type: "histogram" };

/** Labels and the value of a time series. */
export type Sample<Of extends Metric, Value = number> = readonly [labels: LabelsOf<Of>, value: Value];

/** Counted values of a histogram. */
export interface HistogramCounts {
  /** Number of values in each bucket, not cumulative; the last number is that of the values above all buckets. */
  readonly buckets: readonly number[];
  /** Sum of the values. */
  readonly sum: number;
}

export class MetricRegistry {
  readonly #registry = new Registry();

  /** @param labels labels of all metrics */
  constructor(labels: Readonly<Record<string, string>> = {}) {
    this.#registry.setDefaultLabels(labels);
  }

  /** Media type of {@link text}. */
  get contentType(): string {
    return this.#registry.contentType;
  }

  /**
   * Renders all metrics in Prometheus's text format.
   *
   * @throws (as a rejection) the error of a `read` or `collect` function, or an error for a total that is negative or
   * not a number
   */
  text(): Promise<string> {
    return this.#registry.metrics();
  }

  /**
   * Reads the counters and gauges, with the labels of all metrics.
   *
   * @throws as {@link text}
   */
  async read(): Promise<Reading[]> {
    const metrics = await this.#registry.getMetricsAsJSON();
    return metrics
      .filter(({ type }) => type.toString() === "counter" || type.toString() === "gauge")
      .flatMap(({ name, values }) =>
        values.map(({ labels, value }) => ({ name, labels: labels as Reading["labels"], value })),
      );
  }

  /**
   * Defines a counter whose totals are read at each scrape. A counter without labels is zero if `read` returns nothing.
   */
  total<Of extends CounterMetric>(metric: Of, read: () => Iterable<Sample<Of>>): void {
    new Counter({
      ...this.#configurationOf(metric),
      collect() {
        this.reset();
        for (const [labels, total] of read()) this.inc(labels, total);
      },
    });
  }

  /** Defines a gauge whose values are read at each scrape. A gauge without labels is zero if `read` returns nothing. */
  gauge<Of extends GaugeMetric>(metric: Of, read: () => Iterable<Sample<Of>>): void {
    new Gauge({
      ...this.#configurationOf(metric),
      collect() {
        this.reset();
        for (const [labels, value] of read()) this.set(labels, value);
      },
    });
  }

  /** Defines a gauge of one number; undefined is shown as 0. */
  number(metric: GaugeMetric & { readonly labels: readonly [] }, read: () => number | undefined): void {
    this.gauge(metric, () => [[{}, read() ?? 0]]);
  }

  /** Defines a counter that the caller increments. */
  counter<Of extends CounterMetric>(metric: Of): Counter<Of["labels"][number]> {
    return new Counter(this.#configurationOf(metric));
  }

  /** Defines a histogram that the caller fills. @param collect called before each scrape */
  histogram<Of extends HistogramMetric>(metric: Of, collect?: () => void): Histogram<Of["labels"][number]> {
    const buckets = [...metric.buckets];
    return new Histogram({ ...this.#configurationOf(metric), buckets, ...(collect && { collect }) });
  }

  /** Defines a histogram whose counts are read at each scrape. */
  counts<Of extends HistogramMetric>(metric: Of, read: () => Iterable<Sample<Of, HistogramCounts>>): void {
    const { name, help } = metric;
    const get = async () => {
      const values = Array.from(read(), ([labels, counts]) => histogramLines(metric, labels, counts)).flat();
      return { name, help, type: "histogram", values };
    };
    // The registry calls nothing else of a metric. A `Histogram` cannot be filled with counts.
    this.#registry.registerMetric({ name, get } as unknown as Histogram);
  }

  /** Adds prom-client's metrics of the process. */
  addProcessMetrics(): void {
    collectDefaultMetrics({ register: this.#registry });
  }

  /**
   * Releases the metrics and the objects that they read. The metrics of the garbage collector and the event loop live
   * as long as the process, because prom-client cannot stop them; without this method, they would retain the registry
   * and all counters.
   */
  close(): void {
    this.#registry.clear();
  }

  #configurationOf<Of extends Metric>({ name, help, labels }: Of) {
    const labelNames = labels as readonly Of["labels"][number][];
    return { name, help, labelNames, registers: [this.#registry] };
  }
}

/** Lines of one time series of a histogram. */
function histogramLines(
  { name, buckets }: Metric,
  labels: Readonly<Record<string, string>>,
  counts: HistogramCounts,
): MetricValueWithName<string>[] {
  let count = 0;
  const lines = [...buckets, "+Inf"].map((le, index) => {
    count += counts.buckets[index] ?? 0;
    return { labels: { le, ...labels }, value: count, metricName: `${name}_bucket` };
  });
  return [
    ...lines,
    { labels, value: counts.sum, metricName: `${name}_sum` },
    { labels, value: count, metricName: `${name}_count` },
  ];
}
