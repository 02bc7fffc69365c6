import type { Metric, MetricGroup, Panel } from "../model/metrics.js";
import type { DashboardOption } from "../model/options.js";
import type { Spec } from "../model/spec.js";
import type { GeneratedFile } from "../plugin.js";
import { type Query, queriesOf } from "./queries.js";

/** Generates `<uid>.json`, a dashboard of Grafana, for each group of metrics that has one. */
export function generateDashboards(spec: Spec): GeneratedFile[] {
  return spec.files
    .flatMap((file) => file.metricGroups)
    .flatMap((group) => {
      if (group.dashboard === undefined) return [];
      return [{ path: `${group.dashboard.uid}.json`, content: printed(dashboardOf(group, group.dashboard)) }];
    });
}

/** JSON with a line for each panel, which a difference shows whole, in half the bytes of indented JSON. */
function printed({ panels, ...rest }: Dashboard): string {
  const head = JSON.stringify(rest, null, 2).replace(/\n\}$/, "");
  return `${head},\n  "panels": [\n${panels.map((panel) => `    ${JSON.stringify(panel)}`).join(",\n")}\n  ]\n}\n`;
}

/** Version of the format, that of Grafana 10 and later; newer versions read it. */
const schemaVersion = 39;

/** Width of a dashboard, in columns. */
const columns = 24;
/** Size of a panel, in columns and rows of the grid. */
const size = { w: 8, h: 7 };

const datasource = { type: "prometheus", uid: "$datasource" };

interface Dashboard extends Readonly<Record<string, unknown>> {
  readonly panels: readonly object[];
}

function dashboardOf({ title, metrics }: MetricGroup, dashboard: DashboardOption): Dashboard {
  return {
    uid: dashboard.uid,
    title: dashboard.title,
    description: `${title}. Generated from the metrics' declarations by npx buf generate.`,
    tags: ["hawser"],
    schemaVersion,
    editable: true,
    graphTooltip: 1,
    time: { from: "now-1h", to: "now" },
    timezone: "",
    refresh: "30s",
    templating: { list: variablesOf(metrics[0]!.name, dashboard.by) },
    annotations: { list: [] },
    links: [],
    panels: panelsOf(metrics, dashboard.by),
  };
}

/** Each variable lists the values that those before it leave. */
function variablesOf(info: string, by: string): object[] {
  const labels = ["job", by, "instance"];
  return [
    { name: "datasource", label: "Data source", type: "datasource", query: "prometheus", refresh: 1 },
    ...labels.map((name, index) => {
      const chosen = labels.slice(0, index).map((each) => `${each}=~"$${each}"`);
      const query = `label_values(${info}{${chosen.join(", ")}}, ${name})`;
      return {
        name,
        label: `${name.slice(0, 1).toUpperCase()}${name.slice(1)}`,
        type: "query",
        datasource,
        query: { query, refId: name },
        definition: query,
        // Read again whenever the time range changes.
        refresh: 2,
        sort: 1,
        multi: true,
        includeAll: true,
        allValue: ".*",
        current: { text: ["All"], value: ["$__all"] },
      };
    }),
  ];
}

function panelsOf(metrics: readonly Metric[], by: string): object[] {
  const panels: object[] = [];
  let x = 0;
  let y = 0;
  for (const metric of metrics) {
    const panel = metric.panel!;
    if (panel.row !== "") {
      if (x > 0) y += size.h;
      panels.push({
        id: panels.length + 1,
        type: "row",
        title: panel.row,
        collapsed: false,
        gridPos: { x: 0, y, w: columns, h: 1 },
        panels: [],
      });
      x = 0;
      y += 1;
    } else if (x + size.w > columns) {
      x = 0;
      y += size.h;
    }
    panels.push(panelOf(panels.length + 1, metric, panel, by, { x, y, ...size }));
    x += size.w;
  }
  return panels;
}

function panelOf(id: number, metric: Metric, panel: Panel, by: string, gridPos: object): object {
  const queries = queriesOf(metric, panel, by);
  return {
    id,
    title: panel.title,
    description: `${metric.help} Metric: ${metric.name}.`,
    datasource,
    gridPos,
    targets: queries.map((query, index) => targetOf(query, String.fromCharCode(65 + index))),
    ...looksOf(metric, panel),
  };
}

function targetOf({ expression, legend, instant }: Query, refId: string): object {
  return {
    refId,
    datasource,
    editorMode: "code",
    expr: expression,
    legendFormat: legend,
    range: !instant,
    instant,
    ...(instant ? { format: "table" } : {}),
  };
}

/** Type of the panel with its options. */
function looksOf(metric: Metric, panel: Panel): object {
  const unit = unitOf(metric, panel);
  if (metric.name.endsWith("_info")) {
    return {
      type: "table",
      fieldConfig: { defaults: {}, overrides: [] },
      options: { showHeader: true },
      // Neither the time nor the value says anything.
      transformations: [{ id: "organize", options: { excludeByName: { Time: true, Value: true } } }],
    };
  }
  if (unit === "bool_yes_no") {
    const states = { 0: { text: "no", color: "red", index: 0 }, 1: { text: "yes", color: "green", index: 1 } };
    return {
      type: "state-timeline",
      fieldConfig: { defaults: { unit, mappings: [{ type: "value", options: states }] }, overrides: [] },
      options: { showValue: "never", mergeValues: true, legend: { showLegend: true, displayMode: "list" } },
    };
  }
  if (metric.name.endsWith("_timestamp_seconds")) {
    return {
      type: "stat",
      fieldConfig: { defaults: { unit, noValue: "never" }, overrides: [] },
      options: { reduceOptions: { calcs: ["lastNotNull"] }, textMode: "value_and_name", colorMode: "none" },
    };
  }
  return {
    type: "timeseries",
    fieldConfig: {
      defaults: { unit, min: 0, custom: { fillOpacity: 10, showPoints: "never" } },
      overrides: [],
    },
    options: { legend: { showLegend: true, displayMode: "list", placement: "bottom" }, tooltip: { mode: "multi" } },
  };
}

/** Unit in the words of Grafana. */
function unitOf({ name, type, unit }: Metric, panel: Panel): string {
  if (panel.unit !== "") return panel.unit;
  if (name.endsWith("_timestamp_seconds")) return "dateTimeFromNow";
  if (type === "counter") return unit === "bytes" ? "Bps" : "cps";
  return { seconds: "s", bytes: "bytes" }[unit] ?? "short";
}
