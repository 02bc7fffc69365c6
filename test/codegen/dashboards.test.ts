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
  const plan = { uid: "hawser-serve", title: "Serve", by: "database", topics: "", numbers: [], rows: { All: panels } };
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
    expect(names).toEqual(["datasource", "job", by, "instance", "topic", "page"]);
    for (const expression of expressionsOf(dashboard(uid)))
      for (const name of names.slice(1, 4)) expect(expression).toContain(`${name}=~"$${name}"`);
  });

  it("shows each metric in one panel with its help, and labels by their names", () => {
    const panels = dashboard(uid).panels.filter(({ description = "" }) => description.includes("Metric: "));
    expect(panels).toHaveLength(Object.keys(metrics).length);
    for (const metric of Object.values(metrics)) {
      const shown = panels.filter(({ description }) => description.endsWith(`Metric: ${metric.name}.`));
      expect(shown, metric.name).toHaveLength(1);
      const { targets, description } = shown[0]!;
      expect(description.startsWith(metric.help)).toBe(true);
      for (const { expr, legendFormat } of targets) {
        expect(expr).toContain(`${metric.name}${metric.type === "histogram" ? "_bucket" : ""}{`);
        expect(expr.includes("rate("), expr).toBe(metric.type !== "gauge");
        const hasTopic = (metric.labels as readonly string[]).includes("topic");
        expect(expr.includes('topic=~"$topic"'), expr).toBe(hasTopic);
        for (const label of metric.labels) expect(legendFormat).toContain(`{{${label}}}`);
        // A legend names only labels that the query keeps.
        const [, kept = ""] = /by \(([^)]*)\)/.exec(expr)!;
        for (const [, label] of legendFormat.matchAll(/{{(\w+)}}/g)) expect(kept.split(", ")).toContain(label);
      }
      expect(targets).toHaveLength(metric.type === "histogram" ? 2 : 1);
    }
  });

  it("says of each panel what to look at, and begins with four numbers", () => {
    const { panels } = dashboard(uid);
    const numbers = panels.slice(0, 4);
    expect(numbers.map(({ type, gridPos: { y, w } }) => [type, y, w])).toEqual(Array(4).fill(["stat", 0, 6]));
    expect(panels[4]!.type).toBe("row");
    const versions = /_info\.$/;
    for (const { type, title, description } of panels)
      if (type !== "row" && !versions.test(description))
        expect(description.split(". ").length, title).toBeGreaterThan(1);
    for (const { targets } of numbers) expect(targets[0]!.expr).toMatch(/or vector\(0\)\)?$/);
  });

  it("leads from what has a name to the operator's page, with the name encoded", () => {
    const urls = dashboard(uid).panels.flatMap(({ fieldConfig }) => fieldConfig?.defaults.links ?? []);
    const byName = urls.map(({ url }) => url).filter((url) => url.includes("filter="));
    expect(byName.length).toBeGreaterThan(2);
    for (const url of byName)
      expect(url).toMatch(
        /^\$\{page\}\/(topics|streams|schedules|peers)\?filter=\$\{__field\.labels\.\w+:percentencode\}$/,
      );
    for (const { url } of urls) expect(url).toMatch(/^\$\{page\}\//);
  });

  it("shows nothing in red that is so while all is well", () => {
    for (const { title, fieldConfig } of dashboard(uid).panels) {
      const { mappings = [], thresholds } = fieldConfig?.defaults ?? {};
      // Each limit is above zero, and green is below.
      for (const { color, value } of thresholds?.steps ?? [])
        expect(color === "green" ? value === null : Number(value) > 0, title).toBe(true);
      for (const { options } of mappings)
        for (const [value, { color }] of Object.entries(options))
          if (color === "red")
            expect(`${title} ${value}`).toMatch(/^(Postgres|NATS|Ready|Reading|Owner of the name) 0$/);
    }
  });

  it("lays out panels without overlaps or gaps in a row, under rows with titles", () => {
    const { panels } = dashboard(uid);
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
