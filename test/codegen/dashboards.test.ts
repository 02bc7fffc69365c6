/** The dashboards of the chart show each metric. (That they are what the generator makes is checked by `npm run verify`.) */
import type { CodeGeneratorRequest } from "@bufbuild/protobuf/wkt";
import { beforeAll, describe, expect, it } from "vitest";
import { generateDashboards } from "../../codegen/dashboards/generate.js";
import { peerMetrics, serveMetrics } from "../../generated/ts/metrics/metrics.js";
import { dashboard, expressionsOf } from "../support/dashboards.js";
import { compileProject, refusal, requestFor } from "./support/request.js";

let request: CodeGeneratorRequest;

beforeAll(async () => {
  const descriptors = await compileProject();
  const files = descriptors.map(({ name }) => name).filter((name) => name.startsWith("hawser/"));
  request = requestFor(descriptors, files);
});

it.each([
  ["without a panel", [], "hawser_build_info: the metric has no panel; add one to codegen/dashboards/panels.ts"],
  [
    "with two panels",
    [
      ["hawser_build_info", "Versions"],
      ["hawser_build_info", "Again"],
    ],
    "message ServeMetrics: panels.ts shows hawser_build_info twice, or it is no metric here",
  ],
] as const)("the generator refuses a metric %s", async (_, panels, says) => {
  const plan = { uid: "hawser-serve", title: "Serve", by: "database", rows: { All: panels } };
  const why = await refusal(request, (spec) => generateDashboards(spec, { "hawser.metrics.v1.ServeMetrics": plan }));
  expect(why).toContain(says);
});

describe.each([
  ["hawser-serve", serveMetrics, "database"],
  ["hawser-peers", peerMetrics, "peer"],
])("the dashboard %s", (uid, metrics, by) => {
  it("has a uid, no id, and variables, each of which the queries use", () => {
    const { id, uid: own, schemaVersion, templating } = dashboard(uid);
    expect({ id, uid: own, schemaVersion }).toEqual({ id: undefined, uid, schemaVersion: 39 });
    const names = templating.list.map(({ name }) => name);
    expect(names).toEqual(["datasource", "job", by, "instance"]);
    for (const expression of expressionsOf(dashboard(uid)))
      for (const name of names.slice(1)) expect(expression).toContain(`${name}=~"$${name}"`);
  });

  it("shows each metric in one panel with its help, and labels by their names", () => {
    const panels = dashboard(uid).panels.filter(({ type }) => type !== "row");
    expect(panels).toHaveLength(Object.keys(metrics).length);
    for (const metric of Object.values(metrics)) {
      const shown = panels.filter(({ description }) => description.endsWith(`Metric: ${metric.name}.`));
      expect(shown, metric.name).toHaveLength(1);
      const { targets } = shown[0]!;
      for (const { expr, legendFormat } of targets) {
        expect(expr).toContain(`${metric.name}${metric.type === "histogram" ? "_bucket" : ""}{`);
        expect(expr.includes("rate("), expr).toBe(metric.type !== "gauge");
        for (const label of metric.labels) expect(legendFormat).toContain(`{{${label}}}`);
        // A legend names only labels that the query keeps.
        const [, kept = ""] = /by \(([^)]*)\)/.exec(expr)!;
        for (const [, label] of legendFormat.matchAll(/{{(\w+)}}/g)) expect(kept.split(", ")).toContain(label);
      }
      expect(targets).toHaveLength(metric.type === "histogram" ? 2 : 1);
    }
  });

  it("lays out panels without overlaps or gaps in a row, under rows with titles", () => {
    const { panels } = dashboard(uid);
    expect(panels[0]!.type).toBe("row");
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
    const taken = new Set<string>();
    for (const { title, gridPos } of panels) {
      const { x, y, w, h } = gridPos;
      expect(title).not.toBe("");
      expect(x + w).toBeLessThanOrEqual(24);
      for (let column = x; column < x + w; column++)
        for (let line = y; line < y + h; line++) {
          expect(taken, title).not.toContain(`${column}/${line}`);
          taken.add(`${column}/${line}`);
        }
    }
  });
});
