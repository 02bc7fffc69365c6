import type { Metric } from "../model/metrics.js";
import type { PanelLooks } from "./panels.js";

/** Query of a panel. */
export interface Query {
  /** In PromQL, with the variables of the dashboard. */
  readonly expression: string;
  readonly legend: string;
  /** True for a query of the present time alone; false for one of a range. */
  readonly instant: boolean;
}

/** Quantiles shown of histograms, with their names. */
const quantiles = [
  ["0.5", "median"],
  ["0.99", "99 %"],
] as const;

/** Selector of the series that the variables of a dashboard choose. @param hasTopic true if they have the label `topic` */
export function filterOf(by: string, hasTopic: boolean): string {
  return ["job", by, "instance", ...(hasTopic ? ["topic"] : [])].map((label) => `${label}=~"$${label}"`).join(", ");
}

/**
 * Queries that show a metric, with a line for each combination of its labels.
 *
 * @param by label that each metric of the dashboard has
 */
export function queriesOf({ name, type, labels }: Metric, { processes }: PanelLooks, by: string): Query[] {
  const filter = filterOf(
    by,
    labels.some((label) => label.name === "topic"),
  );
  const own = [by, ...labels.map((label) => label.name).filter((label) => label !== by)];
  const shown = processes === "each" || (type === "gauge" && processes === undefined);
  const kept = shown ? [...own, "instance"] : own;
  const legend = kept.map((label) => `{{${label}}}`).join(" ");
  const rate = (series: string) => `rate(${series}{${filter}}[$__rate_interval])`;
  const list = kept.join(", ");
  if (type === "histogram") {
    return quantiles.map(([quantile, word]) => ({
      expression: `histogram_quantile(${quantile}, sum by (le, ${list}) (${rate(`${name}_bucket`)}))`,
      legend: `${word} ${legend}`,
      instant: false,
    }));
  }
  if (type === "counter") {
    return [{ expression: `sum by (${list}) (${rate(name)})`, legend, instant: false }];
  }
  const greatest = `max by (${list}) (${name}{${filter}})`;
  // Grafana's times are in milliseconds; 0 means that there is none.
  const expression = name.endsWith("_timestamp_seconds") ? `${greatest} * 1000 > 0` : greatest;
  return [{ expression, legend, instant: name.endsWith("_info") }];
}
