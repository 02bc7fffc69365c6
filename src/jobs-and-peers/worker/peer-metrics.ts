/** Metrics of peers. */
import { peerMetrics } from "../../../generated/ts/metrics/metrics.js";
import {
  type MetricFamily,
  type MetricSource,
  perItem,
  perOutcome,
  type Readers,
  readMetrics,
} from "../../foundation/monitor/index.js";
import { version } from "../../foundation/runtime/index.js";
import type { StoredTopic } from "../../operating/operate/index.js";
import { otherTopic } from "../handlers/handled-counts.js";
import type { Lease } from "../store/index.js";
import type { MonitoredPeer } from "./monitored-peer.js";

/** Metrics of a peer for `hawser/otel`. */
export function metricSourceOf(peer: MonitoredPeer): MetricSource {
  const { name, handlers } = peer;
  return {
    name,
    table: peerMetrics,
    read: () => readPeerMetrics([peer]),
    follow(listener) {
      const metric = peerMetrics.hawser_peer_handler_duration_seconds.name;
      const onDuration = (topic: string, seconds: number): void => listener(metric, { peer: name, topic }, seconds);
      handlers.durationListeners.add(onDuration);
      return () => void handlers.durationListeners.delete(onDuration);
    },
  };
}

/** Reads the metrics of peers, after their messages in the database were counted. */
export async function readPeerMetrics(peers: Peers): Promise<MetricFamily[]> {
  await Promise.all(peers.map(refreshStored));
  return readMetrics(peerMetrics, readers, peers);
}

function refreshStored({ run: { running }, stored, logger }: MonitoredPeer): Promise<void> {
  return stored.refresh(running && (() => running.countStored()), logger);
}

type Peers = readonly MonitoredPeer[];

const perPeer = perItem(
  (peers: Peers) => peers,
  ({ name: peer }) => ({ peer }),
);

/** Counts by topic of each peer. */
function byTopic<Counts>(peers: Peers, countsOf: (peer: MonitoredPeer) => ReadonlyMap<string, Counts>) {
  return peers.flatMap((peer) => [...countsOf(peer)].map(([topic, counts]) => ({ peer: peer.name, topic, counts })));
}

const sentTopics = (peers: Peers) => byTopic(peers, ({ counters }) => counters.sent);
const handledTopics = (peers: Peers) => byTopic(peers, ({ handlers }) => handlers.counts);
const topicLabels = ({ peer, topic }: { readonly peer: string; readonly topic: string }) => ({ peer, topic });

const sentTotals = perOutcome(sentTopics, topicLabels);
const perHandled = perItem(handledTopics, topicLabels);
const handledTotals = perOutcome(handledTopics, topicLabels);

/** Makes readers of messages in the database by topic, where topics without a label of their own are one. */
function perStored(
  kind: "backlog" | "pending" | "deadTopics",
  hasLabel: (peer: MonitoredPeer, topic: string) => boolean,
) {
  return perItem(
    (peers: Peers) =>
      peers.flatMap((peer) =>
        byLabel(peer.stored.counters?.[kind], (topic) => hasLabel(peer, topic)).map((stored) => ({
          peer: peer.name,
          ...stored,
        })),
      ),
    topicLabels,
  );
}

/** Adds up the topics without a label of their own under {@link otherTopic}. */
function byLabel(topics: readonly StoredTopic[] = [], hasLabel: (topic: string) => boolean): StoredTopic[] {
  const found = new Map<string, StoredTopic>();
  for (const { topic: name, messages, oldestAt } of topics) {
    const topic = hasLabel(name) ? name : otherTopic;
    const known = found.get(topic);
    const oldest = Math.min(known?.oldestAt ?? Number.POSITIVE_INFINITY, oldestAt ?? Number.POSITIVE_INFINITY);
    found.set(topic, {
      topic,
      messages: (known?.messages ?? 0) + messages,
      oldestAt: oldest === Number.POSITIVE_INFINITY ? undefined : oldest,
    });
  }
  return [...found.values()];
}

const isHandled = ({ handlers }: MonitoredPeer, topic: string) => handlers.serves(topic);
const perBacklog = perStored("backlog", isHandled);
const perPending = perStored("pending", ({ counters }, topic) => counters.sent.has(topic));
const perDead = perStored("deadTopics", isHandled);

const perDatabaseBacklog = perItem(
  (peers: Peers) =>
    peers.flatMap(({ name: peer, stored }) =>
      (stored.counters?.shared?.backlog ?? []).map((backlog) => ({ peer, ...backlog })),
    ),
  ({ peer, topic, group, listener, state }) => ({ peer, topic, group, listener, state }),
);

const perSchedule = perItem(
  (peers: Peers) =>
    peers.flatMap(({ name: peer, stored }) =>
      (stored.counters?.shared?.schedules ?? []).map((schedule) => ({ peer, ...schedule })),
    ),
  ({ peer, name, role, problem }) =>
    ({ peer, schedule: name, role, state: problem === null ? "late" : "failing" }) as const,
);

/** Makes the reader of a metric that only those have for which there is a value. */
function perKnown(numberOf: (peer: MonitoredPeer) => number | undefined) {
  return (peers: Peers) =>
    peers.flatMap((peer) => {
      const value = numberOf(peer);
      return value === undefined || Number.isNaN(value) ? [] : [[{ peer: peer.name }, value] as const];
    });
}

function secondsSince(at: number | undefined): number {
  return at === undefined ? 0 : Math.max(0, performance.now() - at) / 1_000;
}

/** Value of a peer's lease; undefined for a worker, and while the peer does not run. */
function leaseOf(numberOf: (lease: Pick<Lease, "state" | "remainingMs">) => number) {
  return ({ run: { running } }: MonitoredPeer) => running?.lease && numberOf(running.lease);
}

const readers: Readers<typeof peerMetrics, Peers> = {
  hawser_peer_info: (peers) => peers.map(({ name: peer }) => [{ peer, version }, 1]),
  hawser_peer_process_start_timestamp_seconds: perPeer(() => performance.timeOrigin / 1_000),
  hawser_peer_ready: perPeer((peer) => Number(peer.health().ready)),
  hawser_peer_lease_held: perKnown(leaseOf(({ state }) => Number(state === "held"))),
  hawser_peer_lease_remaining_seconds: perKnown(leaseOf(({ remainingMs }) => remainingMs / 1_000)),
  hawser_peer_certificate_ends_timestamp_seconds: perKnown(({ run: { running } }) => {
    const endsAt = running?.certificateEndsAt;
    return endsAt === undefined ? undefined : endsAt / 1_000;
  }),
  hawser_peer_postgres_up: perPeer(({ run: { running } }) => Number(running?.store.isUp === true)),
  hawser_peer_postgres_reconnects_total: perPeer(({ counters }) => counters.postgresReconnects),
  hawser_peer_connections: (peers) =>
    peers.flatMap(({ name: peer, run: { running } }) => {
      const { connections, listeners } = running?.numbers ?? {};
      if (connections === undefined || listeners === undefined) return [];
      return [
        [{ peer, direction: "in" }, connections],
        [{ peer, direction: "out" }, listeners],
      ] as const;
    }),
  hawser_peer_reconnects_total: perPeer(({ counters }) => counters.reconnects),

  hawser_peer_sends_total: sentTotals(({ counts }) => counts.sends),
  hawser_peer_requests_total: sentTotals(({ counts }) => counts.requests),

  hawser_peer_messages_received_total: perHandled(({ counts }) => counts.received),
  hawser_peer_attempts_total: perHandled(({ counts }) => counts.attempts),
  hawser_peer_messages_handled_total: handledTotals(({ counts }) => counts.handled),
  hawser_peer_handler_duration_seconds: perHandled(({ counts }) => counts.durations),
  hawser_peer_running_handlers: perPeer(({ run: { running } }) => running?.numbers.running ?? 0),
  hawser_peer_queued_messages: perPeer(({ run: { running } }) => running?.numbers.queued ?? 0),
  hawser_peer_requests_answered_total: handledTotals(({ counts }) => counts.requests),

  hawser_peer_backlog_messages: perBacklog(({ messages }) => messages),
  hawser_peer_backlog_age_seconds: perBacklog(({ oldestAt }) => secondsSince(oldestAt)),
  hawser_peer_pending_messages: perPending(({ messages }) => messages),
  hawser_peer_recent_dead_letters: perDead(({ messages }) => messages),
  hawser_peer_database_backlog_messages: perDatabaseBacklog(({ messages }) => messages),
  hawser_peer_database_backlog_has_more: perDatabaseBacklog(({ hasMore }) => Number(hasMore)),
  hawser_peer_database_backlog_age_seconds: perDatabaseBacklog(({ oldestAt }) => secondsSince(oldestAt)),
  hawser_peer_database_schedule_stuck: perSchedule(() => 1),
};
