/** Monitoring port of `hawser serve`: metrics for Prometheus, and pages for probes. */
export {
  type ConnectionCounters,
  type NatsClient,
  natsClients,
  type ServeCounters,
} from "./counters.js";
export { Monitor, type MonitorOptions } from "./monitor.js";
export { ServeMetrics, type ServeMetricsOptions } from "./serve-metrics.js";
