import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { commentLineOf, commentOf } from "./comments.js";
import { refuseDuplicates } from "./duplicates.js";
import { refuseOption } from "./foreign-option.js";
import type { MetricOption, SpecOptions } from "./options.js";
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
 * @throws SpecError if the group has no title, or a metric has no option, no type, no help, a name, label, unit or
 * bucket against the conventions of Prometheus
 */
export function readMetricGroup(
  message: DescMessage,
  { title }: { readonly title: string },
  options: SpecOptions,
): MetricGroup {
  if (title === "") throw new SpecError(message, "metrics: the group has no title");
  const metrics = message.fields.map((field) => readMetric(field, options));
  return { message, title, comment: commentOf(message), metrics };
}

function readMetric(field: DescField, options: SpecOptions): Metric {
  refuseOption(field, "column", options.column(field));
  refuseOption(field, "setting", options.setting(field));
  const option = options.metric(field);
  if (option === undefined) throw new SpecError(field, "a field of a group of metrics needs the option metric");
  if (field.fieldKind !== "scalar" || field.scalar !== ScalarType.DOUBLE) {
    throw new SpecError(field, "a metric is a double");
  }
  const type = metricTypes[option.type];
  if (type === undefined) throw new SpecError(field, "the metric has no type");
  const help = commentLineOf(field);
  if (!/^[A-Z].*\.$/.test(help)) {
    throw new SpecError(field, "the comment above a metric is its help: a sentence that ends with a full stop");
  }
  checkName(field, type, option.unit);
  checkBuckets(field, type, option.bucket);
  return {
    field,
    name: field.name,
    help,
    type,
    labels: readLabels(field, option.label),
    unit: option.unit,
    buckets: option.bucket,
  };
}

/** @throws SpecError if the name is against https://prometheus.io/docs/practices/naming/ */
function checkName(field: DescField, type: Metric["type"], unit: string): void {
  const { name } = field;
  if (!name.startsWith("hawser_")) throw new SpecError(field, "the name of a metric begins with hawser_");
  if (name.endsWith("_total") !== (type === "counter")) {
    throw new SpecError(field, "the names of counters, and only they, end with _total");
  }
  const stem = name.replace(/_total$/, "");
  if (/_(?:count|sum|bucket|milliseconds|ms)$/.test(stem)) {
    throw new SpecError(
      field,
      "the name ends with a word that Prometheus adds itself, or with a unit other than seconds",
    );
  }
  const expected = /_(seconds|bytes)$/.exec(stem)?.[1] ?? unit;
  if (expected !== unit || (unit !== "" && !stem.endsWith(`_${unit}`))) {
    throw new SpecError(field, `the unit "${unit}" is not the one with which the name ends`);
  }
}

function checkBuckets(field: DescField, type: Metric["type"], buckets: readonly number[]): void {
  if ((type === "histogram") !== buckets.length > 0) {
    throw new SpecError(field, "histograms, and only they, have buckets");
  }
  if (buckets.some((bound, index) => !Number.isFinite(bound) || bound <= (buckets[index - 1] ?? 0))) {
    throw new SpecError(field, "the bounds of the buckets must be positive and ascend");
  }
}

function readLabels(field: DescField, given: MetricOption["label"]): MetricLabel[] {
  refuseDuplicates(field, "labels", given);
  return given.map(({ name, value }) => {
    if (!/^[a-z][a-z_]*$/.test(name) || name === "le") {
      throw new SpecError(
        field,
        `the label "${name}" is not a name in lower_snake_case, or has a meaning in Prometheus`,
      );
    }
    refuseDuplicates(
      field,
      `values of the label ${name}`,
      value.map((each) => ({ name: each })),
    );
    return { name, values: value };
  });
}
