/**
 * The metrics of one `hawser serve`, in a registry of their own: several may be in one process.
 */
import { collectDefaultMetrics, Gauge, Registry } from "prom-client";
import { defineConnectionMetrics } from "./connection-metrics.js";
import type { BoundFunction, ServeCounters } from "./counters.js";
import { type CallOutcome, GatewayMetrics } from "./gateway-metrics.js";
import { ResponderMetrics } from "./responder-metrics.js";
import { SubscriptionMetrics } from "./subscription-metrics.js";

/** What the metrics show. */
export interface ServeMetricsOptions {
  /** Of this program. */
  readonly version: string;
  /** The label `database` of all of them. */
  readonly database: string;
  /** Read at each scrape, from the first one on. */
  readonly counters: ServeCounters;
  /** Milliseconds, by the clock of `SubscriptionCounters.oldestReceivedAt`. Default `performance.now`. */
  readonly now?: (() => number) | undefined;
}

/** See above. */
export class ServeMetrics {
  readonly #registry = new Registry();
  readonly #gateway: GatewayMetrics;
  readonly #subscriptions: SubscriptionMetrics;
  readonly #responders: ResponderMetrics;

  constructor({ version, database, counters, now = () => performance.now() }: ServeMetricsOptions) {
    const registry = this.#registry;
    registry.setDefaultLabels({ database });
    new Gauge({
      name: "hawser_build_info",
      help: "Always 1; the label says which version runs.",
      labelNames: ["version"],
      registers: [registry],
    }).set({ version }, 1);
    defineConnectionMetrics(registry, counters);
    this.#gateway = new GatewayMetrics(registry, counters);
    this.#subscriptions = new SubscriptionMetrics(registry, counters, now);
    this.#responders = new ResponderMetrics(registry, counters);
    collectDefaultMetrics({ register: registry });
  }

  /** The media type of {@link text}. */
  get contentType(): string {
    return this.#registry.contentType;
  }

  /**
   * All of them in Prometheus's text format, read now.
   *
   * @throws (as a rejection) what a counter throws that is read, or if a total is negative or no number
   */
  text(): Promise<string> {
    return this.#registry.metrics();
  }

  /**
   * The gateway has answered a call. Costs less than a microsecond.
   *
   * @param method the method that was called, by its name in the protocol (`Publish`); what is none counts as `unknown`
   */
  observeCall(method: string | undefined, outcome: CallOutcome, durationMs: number): void {
    this.#gateway.observeCall(method, outcome, durationMs);
  }

  /** A transaction with messages is over, whatever became of them. */
  observeBatch(messages: number, durationMs: number): void {
    this.#subscriptions.observeBatch(messages, durationMs);
  }

  /** A request is over whose function was run, however it ended. */
  observeRequest(responder: BoundFunction, durationMs: number): void {
    this.#responders.observeRequest(responder, durationMs);
  }

  /**
   * Lets go of the counters. What watches the garbage collector and the event loop lasts as long as the process: prom-client
   * offers no end of it, and without this it would hold all that the counters lead to.
   */
  close(): void {
    this.#registry.clear();
  }
}
