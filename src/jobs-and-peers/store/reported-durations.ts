/** Classes of the durations that workers report, and samples keep: those of the metric of handlers, some of them together. */
import { peerMetrics } from "../../../generated/ts/metrics/metrics.js";

const { buckets: bounds } = peerMetrics.hawser_peer_handler_duration_seconds;

/** Bounds of durations, in seconds, that workers do not tell apart in their reports. */
const untold: readonly number[] = [0.0003, 0.003];

/** Upper limits of the durations that workers report of, in milliseconds: those of the metric without `untold`. */
export const reportedLimitsMs: readonly number[] = [
  ...bounds.filter((bound) => !untold.includes(bound)).map((bound) => Math.round(bound * 1_000)),
  Number.POSITIVE_INFINITY,
];

/** Numbers of handlers by {@link reportedLimitsMs}. @param buckets numbers by the bounds of the metric */
export function reportedDurations(buckets: readonly number[]): number[] {
  const numbers: number[] = [];
  let below = 0;
  for (const [nth, count] of buckets.entries()) {
    const bound = bounds[nth];
    below += count;
    if (bound !== undefined && untold.includes(bound)) continue;
    numbers.push(below);
    below = 0;
  }
  return numbers;
}
