/**
 * The monitoring port of `hawser serve`: metrics for Prometheus, and the pages for probes.
 */
export {
  type BridgeCounters,
  type ConnectionCounters,
  type NatsClient,
  natsClients,
  type ResponderCounters,
  type ServeCounters,
  type StoredCounters,
  type SubscriptionCounters,
} from "./counters.js";
export { type CheckState, type HealthCheck, Reachability } from "./health.js";
export { ServeMetrics, type ServeMetricsOptions } from "./metrics.js";
export { Monitor, type MonitorOptions } from "./monitor.js";
