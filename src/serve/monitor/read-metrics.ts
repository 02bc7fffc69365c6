/**
 * Metrics whose numbers belong to somebody else: they are read when the page is asked for. What is not among what was read
 * has no series any more.
 */
import { Counter, Gauge, type Registry } from "prom-client";

/** Labels, and the number that they have. */
export type Sample<Label extends string> = readonly [labels: Readonly<Record<Label, string>>, value: number];

/** What is said of a metric. */
export interface MetricText<Label extends string> {
  readonly name: string;
  readonly help: string;
  readonly labels: readonly Label[];
}

/** A counter that shows totals. One without labels is there with zero if nothing is read. */
export function readCounter<Label extends string>(
  registry: Registry,
  { name, help, labels }: MetricText<Label>,
  read: () => Iterable<Sample<Label>>,
): void {
  new Counter<Label>({
    name,
    help,
    labelNames: labels,
    registers: [registry],
    collect() {
      this.reset();
      for (const [values, total] of read()) this.inc(values, total);
    },
  });
}

/** A gauge. One without labels is there with zero if nothing is read. */
export function readGauge<Label extends string>(
  registry: Registry,
  { name, help, labels }: MetricText<Label>,
  read: () => Iterable<Sample<Label>>,
): void {
  new Gauge<Label>({
    name,
    help,
    labelNames: labels,
    registers: [registry],
    collect() {
      this.reset();
      for (const [values, value] of read()) this.set(values, value);
    },
  });
}

/** A counter of one number. */
export function readTotal(registry: Registry, name: string, help: string, read: () => number): void {
  readCounter(registry, { name, help, labels: [] }, () => [[{}, read()]]);
}

/** A gauge of one number. */
export function readNumber(registry: Registry, name: string, help: string, read: () => number): void {
  readGauge(registry, { name, help, labels: [] }, () => [[{}, read()]]);
}
