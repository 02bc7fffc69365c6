/**
 * Metrics and health, for Prometheus, OpenTelemetry and probes. The pages are `/metrics`, `/healthz` and `/readyz`:
 * `hawser serve` serves them on a port of its own; for peers, `monitor` returns a handler that the user's HTTP server
 * calls. The tables in `generated/ts/metrics/` define the metrics.
 */
export { type CheckState, type HealthCheck, healthReport, Reachability } from "./health.js";
export {
  type MetricExporter,
  type MetricSource,
  metricExporter,
  metricSources,
  setMetricExporter,
  type ValueListener,
} from "./metric-source.js";
export {
  Histogram,
  type Labels,
  labelled,
  type MetricFamily,
  perItem,
  perOutcome,
  type Readers,
  readMetrics,
} from "./metrics.js";
export { type MonitorPage, monitorPage, type PageSources } from "./pages.js";
