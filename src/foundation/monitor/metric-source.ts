/**
 * Hooks for metrics: parts of the process offer theirs to exporters other than the page `/metrics`. `hawser/otel` is the
 * one that there is.
 */
import type { Metric } from "../../../generated/ts/metrics/metrics.js";
import type { Labels, MetricFamily } from "./metrics.js";

/** Called with the name of a histogram, its labels and a value, in the unit of the metric. */
export type ValueListener = (name: string, labels: Labels, value: number) => void;

export interface MetricSource {
  /** Name in messages about the source. */
  readonly name: string;
  readonly table: Readonly<Record<string, Metric>>;
  /** Reads the metrics of the table. */
  read(): Promise<readonly MetricFamily[]>;
  /** Calls the listener for each value of a histogram from now on. @returns a function that ends this */
  follow(listener: ValueListener): () => void;
}

/** Sources by the object that the user has, such as a `Peer`. */
export const metricSources = new WeakMap<object, MetricSource>();

export interface MetricExporter {
  /**
   * Exports a source until the returned function is called.
   *
   * @returns function that exports the last values and ends the export. It never rejects
   */
  add(source: MetricSource): () => Promise<void>;
}

/** Exporter of servers that start from now on; undefined if their metrics are not exported. */
export let metricExporter: MetricExporter | undefined;

/** Sets the exporter. @returns a function that restores the previous one */
export function setMetricExporter(next: MetricExporter): () => void {
  const previous = metricExporter;
  metricExporter = next;
  return () => {
    if (metricExporter === next) metricExporter = previous;
  };
}
