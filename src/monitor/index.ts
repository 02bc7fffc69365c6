/**
 * Pages with metrics and health, for Prometheus and probes: `/metrics`, `/healthz`, `/readyz`. `hawser serve` serves
 * them on a port of its own; for peers, `monitor` returns a handler that the user's HTTP server calls. The tables in
 * `generated/ts/metrics/` define the metrics.
 */
export { type CheckState, type HealthCheck, healthReport, Reachability } from "./health.js";
export { type HistogramCounts, MetricRegistry, type Sample } from "./metric-registry.js";
export { type MonitorPage, monitorPage, type PageSources } from "./pages.js";
