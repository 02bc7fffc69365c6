import type { Metric, MetricGroup } from "../model/metrics.js";
import type { Spec } from "../model/spec.js";
import { SpecError } from "../model/spec-error.js";
import type { GeneratedFile } from "../plugin.js";
import { type DashboardPlan, dashboards, type NumberPlan, type PanelLooks } from "./panels.js";
import { filterOf, type Query, queriesOf } from "./queries.js";

/**
 * Generates `<uid>.json`, a dashboard of Grafana, for each group of metrics that has a plan.
 *
 * @throws SpecError if a metric of the group has no panel, or several, or a panel no metric
 */
export function generateDashboards(spec: Spec, plans = dashboards): GeneratedFile[] {
  return spec.files
    .flatMap((file) => file.metricGroups)
    .flatMap((group) => {
      const plan = plans[group.message.typeName];
      return plan === undefined ? [] : [{ path: `${plan.uid}.json`, content: printed(dashboardOf(group, plan)) }];
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
/** Size of a number of the first row. */
const numberSize = { w: 6, h: 4 };

/** Base of links to the operator's page, which the chart replaces. */
const pageUrl = "https://page.example";

const datasource = { type: "prometheus", uid: "$datasource" };

interface Dashboard extends Readonly<Record<string, unknown>> {
  readonly panels: readonly object[];
}

function dashboardOf(group: MetricGroup, plan: DashboardPlan): Dashboard {
  const { title, metrics } = group;
  return {
    uid: plan.uid,
    title: plan.title,
    description: `${title}. Generated from the metrics' declarations by npx buf generate.`,
    tags: ["hawser"],
    schemaVersion,
    editable: true,
    graphTooltip: 1,
    time: { from: "now-1h", to: "now" },
    timezone: "",
    refresh: "30s",
    templating: { list: variablesOf(metrics[0]!.name, plan) },
    annotations: { list: [] },
    links: [
      {
        ...{ title: "Operator's page", type: "link", url: "$page", icon: "external link", tooltip: "", tags: [] },
        ...{ asDropdown: false, includeVars: false, keepTime: false, targetBlank: true },
      },
      {
        ...{ title: "Hawser", type: "dashboards", tags: ["hawser"], icon: "", tooltip: "" },
        ...{ asDropdown: false, includeVars: false, keepTime: true, targetBlank: false },
      },
    ],
    panels: panelsOf(group, plan),
  };
}

/** Each variable lists the values that those before it leave. */
function variablesOf(info: string, { by, topics }: DashboardPlan): object[] {
  const labels = ["job", by, "instance", "topic"];
  return [
    { name: "datasource", label: "Data source", type: "datasource", query: "prometheus", refresh: 1 },
    ...labels.map((name, index) => {
      const chosen = labels.slice(0, index).map((each) => `${each}=~"$${each}"`);
      const query = `label_values(${name === "topic" ? topics : info}{${chosen.join(", ")}}, ${name})`;
      return {
        name,
        label: `${name.slice(0, 1).toUpperCase()}${name.slice(1)}`,
        type: "query",
        datasource,
        query: { query, refId: name },
        // Read again whenever the time range changes.
        refresh: 2,
        sort: 1,
        multi: true,
        includeAll: true,
        allValue: ".*",
        current: { text: ["All"], value: ["$__all"] },
      };
    }),
    {
      ...{ name: "page", label: "Operator's page", type: "textbox", query: pageUrl },
      current: { text: pageUrl, value: pageUrl },
    },
  ];
}

function panelsOf({ message, metrics }: MetricGroup, { rows, by, numbers }: DashboardPlan): object[] {
  const left = new Map(metrics.map((metric) => [metric.name, metric]));
  const panels: object[] = numbers.map((number, index) =>
    numberOf(index + 1, number, by, { x: index * numberSize.w, y: 0, ...numberSize }),
  );
  let y = numberSize.h;
  for (const [row, shown] of Object.entries(rows)) {
    panels.push({
      id: panels.length + 1,
      type: "row",
      title: row,
      collapsed: false,
      gridPos: { x: 0, y, w: columns, h: 1 },
      panels: [],
    });
    y += 1;
    for (const [index, [name, title, looks = {}]] of shown.entries()) {
      const metric = left.get(name);
      if (metric === undefined) throw new SpecError(message, `panels.ts shows ${name} twice, or it is no metric here`);
      left.delete(name);
      const x = (index * size.w) % columns;
      if (index > 0 && x === 0) y += size.h;
      panels.push(panelOf(panels.length + 1, metric, title, looks, by, { x, y, ...size }));
    }
    y += size.h;
  }
  for (const { field } of left.values()) {
    throw new SpecError(field, "the metric has no panel; add one to codegen/dashboards/panels.ts");
  }
  return panels;
}

/** Panel of a number of the first row. */
function numberOf(id: number, number: NumberPlan, by: string, gridPos: object): object {
  const { title, description, unit, page } = number;
  const expression = number.expression
    .replaceAll("FILTER_TOPIC", filterOf(by, true))
    .replaceAll("FILTER", filterOf(by, false));
  const colorMode = number.warnFrom === undefined && number.badFrom === undefined ? "none" : "value";
  return {
    ...{ id, title, description, datasource, gridPos, type: "stat" },
    targets: [targetOf({ expression, legend: title, instant: false }, "A")],
    fieldConfig: {
      defaults: {
        unit,
        decimals: unit === "percentunit" ? 1 : 0,
        thresholds: thresholdsOf(number),
        links: [pageLink(page)],
      },
      overrides: [],
    },
    options: { reduceOptions: { calcs: ["lastNotNull"] }, textMode: "value", colorMode, graphMode: "area" },
  };
}

function pageLink(path: string): object {
  return { title: "Show on the operator's page", url: `\${page}${path}`, targetBlank: true };
}

/** Path of the operator's page that has more about a metric; undefined if none has. */
function pageOf({ name, labels }: Metric): string | undefined {
  const has = (label: string) => labels.some((each) => each.name === label);
  const filtered = (path: string, label: string) => `${path}?filter=\${__field.labels.${label}:percentencode}`;
  if (name.includes("dead_letter")) return "/dead";
  if (has("schedule")) return filtered("/schedules", "schedule");
  if (has("stream")) return filtered("/streams", "subscription");
  if (has("topic")) return filtered("/topics", "topic");
  if (name.startsWith("hawser_outbox_")) return "/outbox";
  return has("peer") ? filtered("/peers", "peer") : undefined;
}

/** Colours by value; green alone without limits. */
function thresholdsOf({ warnFrom, badFrom }: Pick<PanelLooks, "warnFrom" | "badFrom">): object {
  const steps = [
    { color: "green", value: null },
    ...(warnFrom === undefined ? [] : [{ color: "orange", value: warnFrom }]),
    ...(badFrom === undefined ? [] : [{ color: "red", value: badFrom }]),
  ];
  return { mode: "absolute", steps };
}

function panelOf(id: number, metric: Metric, title: string, looks: PanelLooks, by: string, gridPos: object): object {
  const queries = queriesOf(metric, looks, by);
  return {
    id,
    title,
    description: `${metric.help} ${looks.look === undefined ? "" : `${looks.look} `}Metric: ${metric.name}.`,
    datasource,
    gridPos,
    targets: queries.map((query, index) => targetOf(query, String.fromCharCode(65 + index))),
    ...looksOf(metric, looks),
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
function looksOf(metric: Metric, looks: PanelLooks): object {
  const unit = looks.unit ?? unitOf(metric);
  const page = pageOf(metric);
  const links = page === undefined ? {} : { links: [pageLink(page)] };
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
    const [no, yes] = { yes: ["red", "green"], no: ["green", "orange"], either: ["blue", "green"] }[
      looks.well ?? "yes"
    ];
    const states = { 0: { text: "no", color: no, index: 0 }, 1: { text: "yes", color: yes, index: 1 } };
    return {
      type: "state-timeline",
      fieldConfig: { defaults: { unit, mappings: [{ type: "value", options: states }], ...links }, overrides: [] },
      options: { showValue: "never", mergeValues: true, legend: { showLegend: true, displayMode: "list" } },
    };
  }
  if (metric.name.endsWith("_timestamp_seconds")) {
    return {
      type: "stat",
      fieldConfig: { defaults: { unit, noValue: "never", ...links }, overrides: [] },
      options: { reduceOptions: { calcs: ["lastNotNull"] }, textMode: "value_and_name", colorMode: "none" },
    };
  }
  const hasLimits = looks.warnFrom !== undefined || looks.badFrom !== undefined;
  const limits = hasLimits ? { thresholds: thresholdsOf(looks) } : {};
  return {
    type: "timeseries",
    fieldConfig: {
      defaults: {
        ...{ unit, min: 0, ...limits, ...links },
        // Lines, and no area: nothing is coloured as long as all is well.
        custom: { fillOpacity: 10, showPoints: "never", thresholdsStyle: { mode: hasLimits ? "dashed" : "off" } },
      },
      overrides: [],
    },
    options: { legend: { showLegend: true, displayMode: "list", placement: "bottom" }, tooltip: { mode: "multi" } },
  };
}

/** Unit in the words of Grafana. */
function unitOf({ name, type, unit }: Metric): string {
  if (name.endsWith("_timestamp_seconds")) return "dateTimeFromNow";
  if (type === "counter") return unit === "bytes" ? "Bps" : "cps";
  return { seconds: "s", bytes: "bytes" }[unit] ?? "short";
}
