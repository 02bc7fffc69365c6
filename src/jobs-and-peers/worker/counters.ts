/**
 * Totals of a peer for its metrics: plain numbers, which are read at each scrape, so that counting costs only an
 * increment. They live as long as the peer, across stops and starts, and never decrease.
 *
 * Labels have few values: the topics that the peer handles, the first `maxSentTopics` topics that it sends to, and
 * {@link otherTopic} for all others.
 */
import { type LabelsOf, peerMetrics } from "../../../generated/ts/metrics/metrics.js";
import { HawserError } from "../../foundation/errors/index.js";
import { otherTopic, zeros } from "../handlers/handled-counts.js";

/** Number of topics that a peer sends to, beside those that it handles, which have a label. The others share `other`. */
export const maxSentTopics = 100;

const { hawser_peer_sends_total: sends, hawser_peer_requests_total: requests } = peerMetrics;

/** Outcome of a sent request. */
export type RequestOutcome = LabelsOf<typeof requests>["outcome"];

/** Label `outcome` of a send whose message was not accepted. */
export function outcomeOfFailure(error: unknown): "busy" | "failed" {
  return error instanceof HawserError && error.code === "busy" ? "busy" : "failed";
}

/** Sends and requests to one topic. */
export class SentCounts {
  readonly sends = zeros(sends.values.outcome);
  readonly requests = zeros(requests.values.outcome);
}

export class PeerCounters {
  /** Connections to listeners that replaced a lost connection. */
  reconnects = 0;
  /** Sessions with Postgres that replaced a lost session. */
  postgresReconnects = 0;
  readonly #sent = new Map<string, SentCounts>([[otherTopic, new SentCounts()]]);

  /** Counts by topic. */
  get sent(): ReadonlyMap<string, SentCounts> {
    return this.#sent;
  }

  /** Counts of a topic that has a listener. */
  sentTo(topic: string): SentCounts {
    let counts = this.#sent.get(topic);
    if (counts !== undefined) return counts;
    if (this.#sent.size > maxSentTopics) return this.#sent.get(otherTopic)!;
    this.#sent.set(topic, (counts = new SentCounts()));
    return counts;
  }

  /** Counts a send that failed before it was queued for a listener. */
  sendFailed(topic: unknown, error: unknown): void {
    this.sentToAny(topic).sends[outcomeOfFailure(error)] += 1;
  }

  /** Counts of a topic that may have no listener: those of {@link otherTopic}, unless the topic already has a label. */
  sentToAny(topic: unknown): SentCounts {
    return this.#sent.get(topic as string) ?? this.#sent.get(otherTopic)!;
  }
}
