/** Instruments of OpenTelemetry for the metrics of peers and of `hawser serve`. */
import {
  type BatchObservableCallback,
  type Histogram,
  type Meter,
  type MeterProvider,
  type MetricOptions,
  type Observable,
  ValueType,
} from "@opentelemetry/api";
import { type Metric, serveMetrics } from "../../../generated/ts/metrics/metrics.js";
import type { Labels, MetricExporter, MetricSource } from "../../foundation/monitor/index.js";
import { version, within } from "../../foundation/runtime/index.js";
import { schemaUrl } from "./conventions.js";

/** Time for which the end waits for the last export. */
const flushMs = 4_000;

/** Units as UCUM has them: https://ucum.org/ucum */
const units: Readonly<Record<string, string>> = { seconds: "s", bytes: "By", messages: "{message}" };

/** Value of a gauge's time series that is gone: nothing waits any more, and no stream is left unread. */
function goneValueOf(name: string): number {
  return Number(name === serveMetrics.hawser_stream_reading.name);
}

/**
 * Exports sources: their counters and gauges are read when the SDK collects, and their histograms record each value. Names
 * and labels are those of Prometheus.
 */
export class MetricExport implements MetricExporter {
  readonly #provider: MeterProvider;
  readonly #meter: Meter;
  readonly #observables = new Map<string, Observable>();
  readonly #histograms = new Map<string, Histogram>();
  /** Functions that end the exports. */
  readonly #open = new Set<() => void>();

  constructor(provider: MeterProvider) {
    this.#provider = provider;
    this.#meter = provider.getMeter("hawser", version, { schemaUrl });
  }

  add(source: MetricSource): () => Promise<void> {
    const metrics = Object.values(source.table);
    for (const metric of metrics) this.#define(metric);
    const observables = metrics.flatMap(({ name }) => this.#observables.get(name) ?? []);
    let before = new Map<string, { readonly name: string; readonly labels: Labels }>();
    const observe: BatchObservableCallback = async (result) => {
      const gauges: typeof before = new Map();
      for (const { name, type, samples } of await source.read()) {
        for (const [labels, value] of samples) {
          // A histogram records each value.
          if (typeof value !== "number") continue;
          result.observe(this.#observables.get(name)!, value, labels);
          if (type === "gauge") gauges.set(`${name} ${JSON.stringify(labels)}`, { name, labels });
        }
      }
      // The SDK repeats the last value of a time series that is no longer read.
      for (const [series, { name, labels }] of before) {
        if (!gauges.has(series)) result.observe(this.#observables.get(name)!, goneValueOf(name), labels);
      }
      before = gauges;
    };
    this.#meter.addBatchObservableCallback(observe, observables);
    const unfollow = source.follow((name, labels, value) => this.#histograms.get(name)?.record(value, labels));
    const end = (): void => {
      this.#meter.removeBatchObservableCallback(observe, observables);
      unfollow();
      this.#open.delete(end);
    };
    this.#open.add(end);
    return async () => {
      if (!this.#open.has(end)) return;
      await this.#flush();
      end();
    };
  }

  /** Ends all exports. */
  close(): void {
    for (const end of this.#open) end();
  }

  #define(metric: Metric): void {
    const { name, type, help: description, unit, buckets } = metric;
    if (this.#observables.has(name) || this.#histograms.has(name)) return;
    const options: MetricOptions = { description, unit: units[unit] ?? unit, valueType: ValueType.DOUBLE };
    if (type === "histogram") {
      const advice = { explicitBucketBoundaries: [...buckets] };
      this.#histograms.set(name, this.#meter.createHistogram(name, { ...options, advice }));
    } else if (type === "counter") {
      this.#observables.set(name, this.#meter.createObservableCounter(name, options));
    } else this.#observables.set(name, this.#meter.createObservableGauge(name, options));
  }

  /** Exports what the SDK has not exported yet, as far as that succeeds in `flushMs`. */
  async #flush(): Promise<void> {
    // The API has no such method; the MeterProvider of the SDK has.
    const { forceFlush } = this.#provider as { forceFlush?: () => Promise<void> };
    try {
      if (typeof forceFlush === "function") await within(flushMs, forceFlush.call(this.#provider));
    } catch {
      // The SDK has reported it.
    }
  }
}
