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
  type SubscriptionCounters,
} from "./counters.js";
export type { CallOutcome } from "./gateway-metrics.js";
export type { CheckState, HealthCheck } from "./health.js";
export { Monitor, type MonitorLimits, type MonitorOptions } from "./monitor.js";
export { Reachability } from "./reachability.js";
export { ServeMetrics, type ServeMetricsOptions } from "./serve-metrics.js";
