import type { DescField, DescMessage } from "@bufbuild/protobuf";
import { commentLineOf, commentOf } from "./comments.js";
import type { SpecOptions } from "./options.js";
import { SpecError } from "./spec-error.js";

/** Group of metrics, which one kind of program exposes. */
export interface MetricGroup {
  readonly message: DescMessage;
  readonly title: string;
  readonly comment: string;
  readonly metrics: readonly Metric[];
}

/** Types of metrics, indexed by their numbers in the spec. */
const metricTypes = [undefined, "counter", "gauge", "histogram"] as const;

export interface Metric {
  readonly field: DescField;
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly labels: readonly MetricLabel[];
  /** Empty if the metric has none. */
  readonly unit: string;
  /** Upper bounds of the buckets of a histogram; empty for other types. */
  readonly buckets: readonly number[];
}

export interface MetricLabel {
  readonly name: string;
  /** All values; empty if the label can have any. */
  readonly values: readonly string[];
}

/**
 * Reads the group of metrics that a message declares.
 *
 * @throws SpecError if a metric has no option, no type, no help, or a name or unit against the conventions of Prometheus
 */
export function readMetricGroup(
  message: DescMessage,
  { title }: { readonly title: string },
  options: SpecOptions,
): MetricGroup {
  const metrics = message.fields.map((field) => readMetric(field, options));
  return { message, title, comment: commentOf(message), metrics };
}

function readMetric(field: DescField, options: SpecOptions): Metric {
  const option = options.metric(field);
  if (option === undefined) throw new SpecError(field, "a field of a group of metrics needs the option metric");
  const type = metricTypes[option.type];
  if (type === undefined) throw new SpecError(field, "the metric has no type");
  const help = commentLineOf(field);
  if (!/^[A-Z].*\.$/.test(help)) {
    throw new SpecError(field, "the comment above a metric is its help: a sentence that ends with a full stop");
  }
  checkName(field, type, option.unit);
  return {
    field,
    name: field.name,
    help,
    type,
    labels: option.label.map(({ name, value }) => ({ name, values: value })),
    unit: option.unit,
    buckets: option.bucket,
  };
}

/** @throws SpecError if the name is against https://prometheus.io/docs/practices/naming/ */
function checkName(field: DescField, type: Metric["type"], unit: string): void {
  const { name } = field;
  if (name.endsWith("_total") !== (type === "counter")) {
    throw new SpecError(field, "the names of counters, and only they, end with _total");
  }
  const stem = name.replace(/_total$/, "");
  const expected = /_(seconds|bytes)$/.exec(stem)?.[1] ?? unit;
  if (expected !== unit || (unit !== "" && !stem.endsWith(`_${unit}`))) {
    throw new SpecError(field, `the unit "${unit}" is not the one with which the name ends`);
  }
}
