import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { commentLineOf, commentOf } from "./comments.js";
import { refuseDuplicates } from "./duplicates.js";
import { refuseOption } from "./foreign-option.js";
import type { DashboardOption, MetricOption, SpecOptions } from "./options.js";
import { SpecError } from "./spec-error.js";

/** Group of metrics, which one kind of program exposes. */
export interface MetricGroup {
  readonly message: DescMessage;
  readonly title: string;
  readonly comment: string;
  /** Undefined if the group has none. */
  readonly dashboard: DashboardOption | undefined;
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
  /** Undefined if the group has no dashboard. */
  readonly panel: Panel | undefined;
}

/** Panel of a dashboard. */
export interface Panel {
  readonly title: string;
  /** Title of the row that begins with it; empty if it stands in the row of the panel before. */
  readonly row: string;
  readonly processes: "default" | "each" | "max";
  /** Unit in Grafana; empty if it follows from the metric. */
  readonly unit: string;
}

/** Ways of combining the values of several processes in a panel, indexed by the numbers in the spec. */
const panelProcesses = ["default", "each", "max"] as const;

export interface MetricLabel {
  readonly name: string;
  /** All values; empty if the label can have any. */
  readonly values: readonly string[];
}

/**
 * Reads the group of metrics that a message declares.
 *
 * @throws SpecError if the group has no title, or a metric has no option, no type, no help, a name, label, unit or
 * bucket against the conventions of Prometheus, or no panel although there is a dashboard
 */
export function readMetricGroup(
  message: DescMessage,
  { title, dashboard }: { readonly title: string; readonly dashboard?: DashboardOption },
  options: SpecOptions,
): MetricGroup {
  if (title === "") throw new SpecError(message, "metrics: the group has no title");
  const metrics = message.fields.map((field) => readMetric(field, options));
  checkDashboard(message, dashboard, metrics);
  return {
    message,
    title,
    comment: commentOf(message),
    dashboard,
    metrics,
  };
}

function checkDashboard(
  message: DescMessage,
  dashboard: DashboardOption | undefined,
  metrics: readonly Metric[],
): void {
  if (dashboard !== undefined) {
    const { uid, title, by } = dashboard;
    if (!/^[a-z0-9-]{1,40}$/.test(uid)) {
      throw new SpecError(message, `the uid "${uid}" of the dashboard is not 1 to 40 of a-z, 0-9 and "-"`);
    }
    if (title === "") throw new SpecError(message, "the dashboard has no title");
    if (!/^[a-z][a-z_]*$/.test(by)) {
      throw new SpecError(message, `the dashboard's "by" is "${by}"; it is the name of a label that each metric has`);
    }
  }
  for (const [index, { field, type, panel }] of metrics.entries()) {
    if (dashboard === undefined) {
      if (panel !== undefined) throw new SpecError(field, "a panel needs a dashboard of the group");
      continue;
    }
    if (panel === undefined || panel.title === "") {
      throw new SpecError(field, "the group has a dashboard: the metric needs a panel with a title");
    }
    if (index === 0 && panel.row === "") throw new SpecError(field, "the first panel needs a row");
    if (type !== "gauge" && panel.processes === "max") {
      throw new SpecError(field, "only a gauge has the same value in each process: PANEL_PROCESSES_MAX is for gauges");
    }
  }
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
    panel: option.panel && { ...option.panel, processes: panelProcesses[option.panel.processes] ?? "default" },
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
