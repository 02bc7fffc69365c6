import { metric, type RefusalCase } from "./spec-text.js";

const gauge = "type: METRIC_TYPE_GAUGE";
const counter = "type: METRIC_TYPE_COUNTER";
const histogram = "type: METRIC_TYPE_HISTOGRAM";

/** Metrics and their names. */
export const metricCases: readonly RefusalCase[] = [
  {
    name: "a group of metrics without a title",
    proto: "message Foo { option (hawser.spec.v1.metrics) = {}; }",
    says: "message Foo: metrics: the group has no title",
  },
  {
    name: "a field of a group of metrics that is none",
    proto: 'message Foo { option (hawser.spec.v1.metrics) = {title: "Foo"}; double hawser_a = 1; }',
    says: "message Foo.hawser_a: a field of a group of metrics needs the option metric",
  },
  {
    name: "a metric elsewhere",
    proto: `message Foo { double hawser_a = 1 [(hawser.spec.v1.metric) = {${gauge}}]; }`,
    says: "message Foo.hawser_a: the option metric has no meaning here; it belongs in a message with the option metrics",
  },
  {
    name: "a metric that is an integer",
    proto: metric("int64 hawser_a = 1", gauge),
    says: "message Foo.hawser_a: a metric is a double",
  },
  {
    name: "a metric without a type",
    proto: metric("double hawser_a = 1", ""),
    says: "message Foo.hawser_a: the metric has no type",
  },
  ...["", "no capital.", "No full stop"].map((help) => ({
    name: `the help ${JSON.stringify(help)}`,
    proto: metric("double hawser_a = 1", gauge, help),
    says: "message Foo.hawser_a: the comment above a metric is its help: a sentence that ends with a full stop",
  })),
  {
    name: "a metric of another program",
    proto: metric("double a = 1", gauge),
    says: "message Foo.a: the name of a metric begins with hawser_",
  },
  ...[
    ["hawser_a", counter],
    ["hawser_a_total", gauge],
  ].map(([name, type]) => ({
    name: `the name ${name} with ${type}`,
    proto: metric(`double ${name} = 1`, type!),
    says: `message Foo.${name}: the names of counters, and only they, end with _total`,
  })),
  ...["hawser_a_count", "hawser_a_ms"].map((name) => ({
    name: `the name ${name}`,
    proto: metric(`double ${name} = 1`, gauge),
    says: `message Foo.${name}: the name ends with a word that Prometheus adds itself, or with a unit other than seconds`,
  })),
  ...[
    ["hawser_a_seconds", ""],
    ["hawser_a", "bytes"],
    ["hawser_b_seconds", "bytes"],
  ].map(([name, unit]) => ({
    name: `the name ${name} with the unit "${unit}"`,
    proto: metric(`double ${name} = 1`, `${gauge} unit: "${unit}"`),
    says: `message Foo.${name}: the unit "${unit}" is not the one with which the name ends`,
  })),
  ...[histogram, `${gauge} bucket: [1]`].map((option) => ({
    name: `buckets: ${option}`,
    proto: metric("double hawser_a = 1", option),
    says: "message Foo.hawser_a: histograms, and only they, have buckets",
  })),
  ...["1, 1", "0, 1", "1, inf"].map((bounds) => ({
    name: `the buckets ${bounds}`,
    proto: metric("double hawser_a = 1", `${histogram} bucket: [${bounds}]`),
    says: "message Foo.hawser_a: the bounds of the buckets must be positive and ascend",
  })),
  ...["le", "A", "a-b", ""].map((label) => ({
    name: `the label "${label}"`,
    proto: metric("double hawser_a = 1", `${gauge} label: {name: "${label}"}`),
    says: `message Foo.hawser_a: the label "${label}" is not a name in lower_snake_case, or has a meaning in Prometheus`,
  })),
  {
    name: "a label twice",
    proto: metric("double hawser_a = 1", `${gauge} label: {name: "a"} label: {name: "a"}`),
    says: 'message Foo.hawser_a: two labels are named "a"; give each a different name',
  },
  {
    name: "a value of a label twice",
    proto: metric("double hawser_a = 1", `${gauge} label: {name: "a" value: ["x", "x"]}`),
    says: 'message Foo.hawser_a: two values of the label a are named "x"; give each a different name',
  },
];
