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
import type { Metric } from "../../generated/ts/metrics/metrics.js";
import { exportConstants } from "../../generated/ts/settings/otel.js";
import { version } from "../files/index.js";
import { type MetricExporter, type MetricSource, within } from "../runtime/index.js";
import { schemaUrl } from "./conventions.js";

/** Units as UCUM has them: https://ucum.org/ucum */
const units: Readonly<Record<string, string>> = { seconds: "s", bytes: "By", messages: "{message}" };

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
    const observe: BatchObservableCallback = async (result) => {
      for (const { name, labels, value } of await source.read()) {
        const observable = this.#observables.get(name);
        if (observable !== undefined) result.observe(observable, value, labels);
      }
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
      if (typeof forceFlush === "function") await within(exportConstants.flushMs, forceFlush.call(this.#provider));
    } catch {
      // The SDK has reported it.
    }
  }
}
