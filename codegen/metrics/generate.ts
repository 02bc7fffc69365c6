import type { Metric, MetricGroup } from "../model/metrics.js";
import { lowerFirst } from "../model/names.js";
import type { Spec } from "../model/spec.js";
import type { GeneratedFile } from "../plugin.js";
import { docstring, fileOfEachArea, stringLiteral, typescriptHead } from "../print.js";

/** Generates `<area>.ts` for each package with metrics: a table of each group, whose names and labels are literal types. */
export function generateMetrics(spec: Spec): GeneratedFile[] {
  return fileOfEachArea(
    spec,
    (file) => file.metricGroups.length > 0,
    (sources) => {
      const tables = sources.flatMap((file) => file.metricGroups).map(tableOf);
      return [typescriptHead("codegen/metrics", sources), metricInterface, labelsType, ...tables].join("\n");
    },
  );
}

const metricInterface = `/** Metric of Prometheus. */
export interface Metric {
  readonly name: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly help: string;
  /** Unit with which the name ends; empty if there is none. */
  readonly unit: string;
  /** Names of the labels, in their order. */
  readonly labels: readonly string[];
  /** Labels with a fixed set of values, and these values. */
  readonly values: Readonly<Record<string, readonly string[]>>;
  /** Upper bounds of the buckets of a histogram, ascending; empty for other types. */
  readonly buckets: readonly number[];
}
`;

const labelsType = `/** Labels of a time series of the metric. */
export type LabelsOf<Of extends Metric> = {
  readonly [Name in Of["labels"][number]]: Name extends keyof Of["values"] ? Of["values"][Name][number] : string;
};
`;

function tableOf({ message, title, comment, metrics }: MetricGroup): string {
  const about = docstring(`${title}. ${comment}`.trim());
  const entries = metrics.map(entryOf).join("");
  const type = "as const satisfies Readonly<Record<string, Metric>>";
  return `${about}export const ${lowerFirst(message.name)} = {\n${entries}} ${type};\n`;
}

function entryOf({ name, type, help, unit, labels, buckets }: Metric): string {
  const list = (texts: readonly string[]) => `[${texts.map(stringLiteral).join(", ")}]`;
  const values = labels.filter((label) => label.values.length > 0).map((each) => `${each.name}: ${list(each.values)}`);
  const lines = [
    `name: ${stringLiteral(name)}`,
    `type: ${stringLiteral(type)}`,
    `help: ${stringLiteral(help)}`,
    `unit: ${stringLiteral(unit)}`,
    `labels: ${list(labels.map((label) => label.name))}`,
    `values: {${values.length === 0 ? "" : ` ${values.join(", ")} `}}`,
    `buckets: [${buckets.join(", ")}]`,
  ];
  return `${docstring(help, "  ")}  ${name}: {\n${lines.map((line) => `    ${line},\n`).join("")}  },\n`;
}
