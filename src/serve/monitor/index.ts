/**
 * The monitoring port of `hawser serve`: metrics for Prometheus, and the pages for probes.
 */
export {
  type BoundFunction,
  type BridgeCounters,
  type ConnectionCounters,
  type DatabaseRole,
  type GatewayCounters,
  type NatsClient,
  natsClients,
  type ResponderCounters,
  type ServeCounters,
  type StoredCounters,
  type StreamCounters,
  type SubscriptionCounters,
} from "./counters.js";
export { type CheckState, type HealthCheck, Reachability } from "./health.js";
export { type CallOutcome, ServeMetrics, type ServeMetricsOptions } from "./metrics.js";
export { Monitor, type MonitorOptions } from "./monitor.js";
