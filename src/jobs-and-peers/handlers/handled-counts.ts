/**
 * Totals of handlers for metrics: plain numbers, which are read at each scrape, so that counting costs only an increment.
 * They live as long as the worker or peer, across stops and starts, and never decrease.
 */
import { peerMetrics } from "../../../generated/ts/metrics/metrics.js";
import { Histogram } from "../../foundation/monitor/index.js";

const {
  hawser_peer_messages_handled_total: handled,
  hawser_peer_requests_answered_total: answered,
  hawser_peer_handler_duration_seconds: durations,
} = peerMetrics;

/** Label of the topics that have no label of their own. */
export const otherTopic = "other";

type Totals<Outcome extends string> = { [Name in Outcome]: number };

/** Totals of 0 by outcome. */
export function zeros<Outcome extends string>(outcomes: readonly Outcome[]): Totals<Outcome> {
  return Object.fromEntries(outcomes.map((outcome) => [outcome, 0])) as Totals<Outcome>;
}

function add<Outcome extends string>(to: Totals<Outcome>, from: Totals<Outcome>): void {
  for (const outcome of Object.keys(from) as Outcome[]) to[outcome] += from[outcome];
}

/** Received messages and requests of one topic. */
export class HandledCounts {
  received = 0;
  attempts = 0;
  readonly handled = zeros(handled.values.outcome);
  readonly requests = zeros(answered.values.outcome);
  /** Durations of handlers, in seconds. */
  readonly durations = new Histogram(durations);

  /** Adds the totals of a topic that is no longer handled. */
  add({ received, attempts, handled, requests, durations }: HandledCounts): void {
    this.received += received;
    this.attempts += attempts;
    add(this.handled, handled);
    add(this.requests, requests);
    this.durations.add(durations);
  }
}
