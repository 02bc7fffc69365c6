/**
 * Metrics of the responders: requests, how they ended, and how long they took.
 */
import { Histogram, type Registry } from "prom-client";
import type { BoundFunction, ResponderCounters, ServeCounters } from "./counters.js";
import { readCounter, readNumber } from "./read-metrics.js";

/** In seconds: from one row to the greatest sensible `responder_timeout_ms`. */
const durationBuckets = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30];

const labelNames = ["responder", "subject", "function"] as const;

type ResponderLabels = Record<(typeof labelNames)[number], string>;

const outcomes: readonly (readonly [name: string, totalOf: (counters: ResponderCounters) => number])[] = [
  ["ok", ({ ok }) => ok],
  ["failed", ({ failed }) => failed],
  ["timed_out", ({ timedOut }) => timedOut],
  ["busy", ({ busy }) => busy],
];

/** See above. */
export class ResponderMetrics {
  readonly #counters: ServeCounters;
  readonly #durations: Histogram<keyof ResponderLabels>;
  /** Those that have durations, by id. */
  readonly #observed = new Map<bigint, ResponderLabels>();

  constructor(registry: Registry, counters: ServeCounters) {
    this.#counters = counters;
    defineRequests(registry, counters);
    this.#durations = new Histogram({
      name: "hawser_responder_request_duration_seconds",
      help: "How long the function of a request ran, without its wait for a turn.",
      labelNames,
      buckets: durationBuckets,
      registers: [registry],
      collect: () => this.#forgetTheGone(),
    });
  }

  observeRequest(responder: BoundFunction, durationMs: number): void {
    let labels = this.#observed.get(responder.id);
    if (labels === undefined) {
      labels = labelsOf(responder);
      this.#observed.set(responder.id, labels);
    }
    this.#durations.observe(labels, durationMs / 1_000);
  }

  /** Also of a responder whose last request ended after it had gone. */
  #forgetTheGone(): void {
    const present = new Set(Array.from(this.#counters.bridge?.responders ?? [], ({ id }) => id));
    for (const [id, labels] of this.#observed) {
      if (present.has(id)) continue;
      this.#observed.delete(id);
      this.#durations.remove(labels);
    }
  }
}

function defineRequests(registry: Registry, counters: ServeCounters): void {
  readCounter(
    registry,
    {
      name: "hawser_responder_requests_total",
      help: "Requests to responders of this process, by how they ended: ok, failed, timed_out or busy.",
      labels: [...labelNames, "outcome"],
    },
    function* () {
      for (const each of counters.bridge?.responders ?? []) {
        for (const [outcome, totalOf] of outcomes) yield [{ ...labelsOf(each), outcome }, totalOf(each)];
      }
    },
  );
  readNumber(
    registry,
    "hawser_responder_requests_in_flight",
    "Requests whose function runs now.",
    () => counters.bridge?.requestsInFlight ?? 0,
  );
  readNumber(
    registry,
    "hawser_responder_requests_queued",
    "Requests that wait for their turn.",
    () => counters.bridge?.requestsQueued ?? 0,
  );
}

function labelsOf({ id, subject, functionName }: BoundFunction): ResponderLabels {
  return { responder: String(id), subject, function: functionName };
}
