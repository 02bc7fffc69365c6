import type { Metric, MetricLabel } from "../model/metrics.js";
import type { SpecFile } from "../model/spec.js";
import { code, codes, markdownTable, prose, section } from "../print.js";

/** Metrics of one file, with their types and labels. */
export function metricsSections(file: SpecFile): string {
  return file.metricGroups
    .map(({ title, comment, metrics }) => {
      const rows = metrics.map((metric) => [
        code(metric.name),
        metric.type,
        metric.labels.map(labelText).join("; "),
        meaning(metric),
      ]);
      return section(`## ${title}`, comment, markdownTable(["Metric", "Type", "Labels", "Meaning"], rows));
    })
    .join("\n");
}

function labelText({ name, values }: MetricLabel): string {
  return values.length === 0 ? code(name) : `${code(name)}: ${codes(values)}`;
}

function meaning({ help, buckets }: Metric): string {
  return buckets.length === 0 ? prose(help) : `${prose(help)} Buckets: ${buckets.join(", ")}.`;
}
