/** Prometheus's text format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format */
import type { Histogram, Labels, MetricFamily } from "./metrics.js";

/** Media type of {@link prometheusText}. */
export const prometheusType = "text/plain; version=0.0.4; charset=utf-8";

/** Renders metrics, each with its help, its type and a line for each value. */
export function prometheusText(families: readonly MetricFamily[]): string {
  return families.map(familyText).join("\n");
}

function familyText({ name, type, help, samples }: MetricFamily): string {
  const lines = samples.flatMap(([labels, value]) =>
    typeof value === "number" ? [line(name, labels, value)] : histogramLines(name, labels, value),
  );
  return [`# HELP ${name} ${escaped(help)}`, `# TYPE ${name} ${type}`, ...lines, ""].join("\n");
}

/** Lines of a histogram, whose buckets contain those below. */
function histogramLines(name: string, labels: Labels, { bounds, buckets, sum }: Histogram): string[] {
  let count = 0;
  const counted = buckets.map((values, index) => {
    count += values;
    return line(`${name}_bucket`, { le: numberText(bounds[index] ?? Number.POSITIVE_INFINITY), ...labels }, count);
  });
  return [...counted, line(`${name}_sum`, labels, sum), line(`${name}_count`, labels, count)];
}

function line(name: string, labels: Labels, value: number): string {
  const pairs = Object.entries(labels).map(([label, text]) => `${label}="${escaped(text).replaceAll('"', '\\"')}"`);
  return `${name}${pairs.length === 0 ? "" : `{${pairs.join(",")}}`} ${numberText(value)}`;
}

function escaped(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
}

/** Number as Go's ParseFloat reads it. */
function numberText(value: number): string {
  if (value === Number.POSITIVE_INFINITY) return "+Inf";
  return value === Number.NEGATIVE_INFINITY ? "-Inf" : String(value);
}
