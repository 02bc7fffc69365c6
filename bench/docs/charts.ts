/**
 * Which bars the charts of a suite have.
 */
import { resultOf } from "../report.js";
import { summarize } from "../statistics.js";
import type { ChartPlan, Measured, Suite } from "../suite.js";
import { rowLabel } from "../tables.js";
import type { Bar, BarChart } from "./bar-chart.js";

/** The name of a chart's file. */
export function chartFile({ name }: Pick<Suite, "name">, { title }: ChartPlan): string {
  const words = title.toLowerCase().match(/[a-z0-9]+/g)!;
  return `${name}-${words.join("-")}.svg`;
}

/** A chart with what was measured; undefined if nothing of it was. */
export function chartOf(plan: ChartPlan, results: readonly Measured[]): BarChart | undefined {
  const drawn = results.filter(({ name }) => plan.results.includes(name));
  const [first] = drawn;
  if (first === undefined) return undefined;
  return {
    title: plan.title,
    unit: first.unit,
    better: first.better,
    scale: plan.scale ?? "linear",
    groups: drawn.map((measured) => ({
      label: plan.results.length === 1 ? rowLabel(measured) : resultOf(measured).name,
      bars: [
        barOf("Hawser", measured.samples, true),
        ...measured.baselines.map(({ name, samples }) => barOf(name, samples, false)),
      ],
    })),
  };
}

function barOf(label: string, samples: readonly number[], ours: boolean): Bar {
  return { label, ...summarize(samples), ours };
}
