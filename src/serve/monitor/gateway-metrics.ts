/**
 * Metrics of the gateway: its sessions, and the calls that it answers.
 */
import { Counter, Histogram, type Registry } from "prom-client";
import { methods } from "../../../generated/ts/nats-functions/methods.js";
import type { ServeCounters } from "./counters.js";
import { readNumber } from "./read-metrics.js";

/** How a call ended, for whoever made it. */
export const callOutcomes = ["ok", "error"] as const;

/** See {@link callOutcomes}. */
export type CallOutcome = (typeof callOutcomes)[number];

/** Stands for what is no method: a caller's own words are no label. */
const noMethod = "unknown";

/** In seconds: a publish takes some ten microseconds, a request up to its time limit. */
const durationBuckets = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10];

/** See above. */
export class GatewayMetrics {
  readonly #calls: Counter<"method" | "outcome">;
  readonly #durations: Histogram<"method">;

  constructor(registry: Registry, counters: ServeCounters) {
    const registers = [registry];
    readNumber(
      registry,
      "hawser_gateway_sessions",
      "Database sessions that are connected to the gateway.",
      () => counters.gateway?.sessions ?? 0,
    );
    this.#calls = new Counter({
      name: "hawser_gateway_calls_total",
      help: "Calls of SQL functions that the gateway has answered, by method and by how they ended.",
      labelNames: ["method", "outcome"],
      registers,
    });
    this.#durations = new Histogram({
      name: "hawser_gateway_call_duration_seconds",
      help: "How long the gateway took to answer a call, from its arrival to its answer.",
      labelNames: ["method"],
      buckets: durationBuckets,
      registers,
    });
    // A first error shows as a step from zero, and not as a series that begins with one, which rate() does not see.
    for (const method of [...Object.keys(methods), noMethod]) {
      for (const outcome of callOutcomes) this.#calls.inc({ method, outcome }, 0);
    }
  }

  observeCall(asked: string | undefined, outcome: CallOutcome, durationMs: number): void {
    const method = asked !== undefined && Object.hasOwn(methods, asked) ? asked : noMethod;
    this.#calls.inc({ method, outcome });
    this.#durations.observe({ method }, durationMs / 1_000);
  }
}
