/** Metrics of a peer for `hawser/otel`. */
import { peerMetrics } from "../../generated/ts/metrics/metrics.js";
import type { MetricSource, Reading } from "../runtime/index.js";
import type { MonitoredPeer } from "./monitored-peer.js";

export function metricSourceOf(peer: MonitoredPeer): MetricSource {
  const { name, handlers } = peer;
  // Loaded with the first reading, as by `monitor`.
  let loading: Promise<() => Promise<Reading[]>> | undefined;
  return {
    name,
    table: peerMetrics,
    async read() {
      loading ??= import("./monitor-pages.js").then(({ metricsReader }) => metricsReader([peer]));
      return await (await loading)();
    },
    follow(listener) {
      const metric = peerMetrics.hawser_peer_handler_duration_seconds.name;
      const onDuration = (topic: string, seconds: number): void => listener(metric, { peer: name, topic }, seconds);
      handlers.durationListeners.add(onDuration);
      return () => void handlers.durationListeners.delete(onDuration);
    },
  };
}
