/** Monitoring port of `hawser serve`: metrics for Prometheus, and pages for probes. */
export {
  type ConnectionCounters,
  type NatsClient,
  natsClients,
  type ServeCounters,
  type StoredCounters,
} from "./counters.js";
export { type CheckState, type HealthCheck, Reachability } from "./health.js";
export { ServeMetrics, type ServeMetricsOptions } from "./metrics.js";
export { Monitor, type MonitorOptions } from "./monitor.js";
