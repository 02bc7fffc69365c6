/** Pages of `monitor`: peers as metrics and health checks. */
import { type LabelsOf, peerMetrics } from "../../generated/ts/metrics/metrics.js";
import { version } from "../files/index.js";
import { type HealthCheck, MetricRegistry, monitorPage } from "../monitor/index.js";
import type { Reading } from "../runtime/index.js";
import type { Backlog, StoredTopic } from "../store/index.js";
import { type HandledCounts, otherTopic, type SentCounts } from "./counters.js";
import type { MonitoredPeer } from "./monitored-peer.js";
import type { RunningPeer } from "./running-peer.js";

/** Returns a function that answers requests for the pages. */
export function monitorPages(peers: readonly MonitoredPeer[]): (method: string, path: string) => Promise<Response> {
  const registry = metricsOf(peers);
  const metrics = {
    contentType: registry.contentType,
    async text(): Promise<string> {
      await Promise.all(peers.map(refreshStored));
      return await registry.text();
    },
  };
  const sources = { metrics, health: peers.flatMap(checksOf), logger: peers[0]!.logger };
  return async (method, path) => {
    const { status, headers, body } = await monitorPage(method, path, sources, "the peer");
    const length = { "Content-Length": String(Buffer.byteLength(body)) };
    return new Response(method === "HEAD" ? null : body, { status, headers: { ...headers, ...length } });
  };
}

/** Returns a function that reads the counters and gauges. */
export function metricsReader(peers: readonly MonitoredPeer[]): () => Promise<Reading[]> {
  const registry = metricsOf(peers);
  return async () => {
    await Promise.all(peers.map(refreshStored));
    return await registry.read();
  };
}

function checksOf(peer: MonitoredPeer): HealthCheck[] {
  const { name } = peer;
  return [
    {
      name: "name",
      peer: name,
      affects: "health",
      state: () => ({
        ok: !peer.isNameLost,
        detail: peer.isNameLost ? "another process has taken the name" : undefined,
      }),
    },
    {
      name: "ready",
      peer: name,
      affects: "readiness",
      state: () => {
        const { ready, problems } = peer.health();
        return { ok: ready, detail: ready ? undefined : problems.join("; ") };
      },
    },
  ];
}

function refreshStored({ name, running, stored, logger }: MonitoredPeer): Promise<void> {
  const count = async (of: RunningPeer) => ({
    ...(await of.store.storedCountersOf(name)),
    // One peer of a database counts.
    databaseBacklog: of.isFirst ? await of.store.countBacklog() : [],
  });
  return stored.refresh(running && (() => count(running)), logger);
}

function metricsOf(peers: readonly MonitoredPeer[]): MetricRegistry {
  const registry = new MetricRegistry();
  defineState(registry, peers);
  defineSends(registry, peers);
  defineHandling(registry, peers);
  defineStored(registry, peers);
  return registry;
}

/** Reads one number of each peer. */
function perPeer(peers: readonly MonitoredPeer[], numberOf: (peer: MonitoredPeer) => number) {
  return () => peers.map((peer) => [{ peer: peer.name }, numberOf(peer)] as const);
}

function defineState(registry: MetricRegistry, peers: readonly MonitoredPeer[]): void {
  registry.gauge(peerMetrics.hawser_peer_info, () => peers.map(({ name: peer }) => [{ peer, version }, 1] as const));
  registry.gauge(
    peerMetrics.hawser_peer_ready,
    perPeer(peers, (peer) => Number(peer.health().ready)),
  );
  registry.gauge(
    peerMetrics.hawser_peer_lease_held,
    perPeer(peers, ({ running }) => Number(running?.lease.state === "held")),
  );
  registry.gauge(
    peerMetrics.hawser_peer_lease_remaining_seconds,
    perPeer(peers, ({ running }) => (running?.lease.remainingMs ?? 0) / 1_000),
  );
  registry.gauge(
    peerMetrics.hawser_peer_postgres_up,
    perPeer(peers, ({ running }) => Number(running?.store.isUp === true)),
  );
  registry.total(
    peerMetrics.hawser_peer_postgres_reconnects_total,
    perPeer(peers, ({ counters }) => counters.postgresReconnects),
  );
  registry.gauge(peerMetrics.hawser_peer_connections, () =>
    peers.flatMap(({ name: peer, running }) => {
      const { connections = 0, listeners = 0 } = running?.numbers ?? {};
      return [
        [{ peer, direction: "in" }, connections],
        [{ peer, direction: "out" }, listeners],
      ] as const;
    }),
  );
  registry.total(
    peerMetrics.hawser_peer_reconnects_total,
    perPeer(peers, ({ counters }) => counters.reconnects),
  );
}

function defineSends(registry: MetricRegistry, peers: readonly MonitoredPeer[]): void {
  const sends = peerMetrics.hawser_peer_sends_total;
  registry.total(sends, () =>
    eachSent(peers, (labels, counts) =>
      sends.values.outcome.map((outcome) => [{ ...labels, outcome }, counts.sends[outcome]] as const),
    ),
  );
  const requests = peerMetrics.hawser_peer_requests_total;
  registry.total(requests, () =>
    eachSent(peers, (labels, counts) =>
      requests.values.outcome.map((outcome) => [{ ...labels, outcome }, counts.requests[outcome]] as const),
    ),
  );
}

type TopicLabels = LabelsOf<typeof peerMetrics.hawser_peer_attempts_total>;

function eachSent<T>(peers: readonly MonitoredPeer[], seriesOf: (labels: TopicLabels, counts: SentCounts) => T[]): T[] {
  return peers.flatMap(({ name: peer, counters }) =>
    [...counters.sent].flatMap(([topic, counts]) => seriesOf({ peer, topic }, counts)),
  );
}

function defineHandling(registry: MetricRegistry, peers: readonly MonitoredPeer[]): void {
  const eachHandled = <T>(seriesOf: (labels: TopicLabels, counts: HandledCounts) => T[]): T[] =>
    peers.flatMap(({ name: peer, handlers }) =>
      [...handlers.counts].flatMap(([topic, counts]) => seriesOf({ peer, topic }, counts)),
    );
  registry.total(peerMetrics.hawser_peer_messages_received_total, () =>
    eachHandled((labels, { received }) => [[labels, received] as const]),
  );
  registry.total(peerMetrics.hawser_peer_attempts_total, () =>
    eachHandled((labels, { attempts }) => [[labels, attempts] as const]),
  );
  const handled = peerMetrics.hawser_peer_messages_handled_total;
  registry.total(handled, () =>
    eachHandled((labels, counts) =>
      handled.values.outcome.map((outcome) => [{ ...labels, outcome }, counts.handled[outcome]] as const),
    ),
  );
  registry.counts(peerMetrics.hawser_peer_handler_duration_seconds, () =>
    eachHandled((labels, { durations }) => [[labels, durations] as const]),
  );
  registry.gauge(
    peerMetrics.hawser_peer_running_handlers,
    perPeer(peers, ({ running }) => running?.numbers.running ?? 0),
  );
  registry.gauge(
    peerMetrics.hawser_peer_queued_messages,
    perPeer(peers, ({ running }) => running?.numbers.queued ?? 0),
  );
  registry.gauge(
    peerMetrics.hawser_peer_parked_messages,
    perPeer(peers, ({ running }) => running?.numbers.parked ?? 0),
  );
  const answered = peerMetrics.hawser_peer_requests_answered_total;
  registry.total(answered, () =>
    eachHandled((labels, counts) =>
      answered.values.outcome.map((outcome) => [{ ...labels, outcome }, counts.requests[outcome]] as const),
    ),
  );
}

function defineStored(registry: MetricRegistry, peers: readonly MonitoredPeer[]): void {
  const backlogOf = (peer: MonitoredPeer) =>
    byLabel(peer.stored.counters?.backlog, (topic) => peer.handlers.serves(topic));
  registry.gauge(peerMetrics.hawser_peer_backlog_messages, () =>
    peers.flatMap((peer) =>
      backlogOf(peer).map(({ topic, messages }) => [{ peer: peer.name, topic }, messages] as const),
    ),
  );
  registry.gauge(peerMetrics.hawser_peer_backlog_age_seconds, () =>
    peers.flatMap((peer) =>
      backlogOf(peer).map(({ topic, oldestAt }) => [{ peer: peer.name, topic }, secondsSince(oldestAt)] as const),
    ),
  );
  registry.gauge(peerMetrics.hawser_peer_pending_messages, () =>
    peers.flatMap(({ name: peer, stored, counters }) =>
      byLabel(stored.counters?.pending, (topic) => counters.sent.has(topic)).map(
        ({ topic, messages }) => [{ peer, topic }, messages] as const,
      ),
    ),
  );
  registry.gauge(peerMetrics.hawser_peer_recent_dead_letters, () =>
    peers.flatMap(({ name: peer, stored, handlers }) =>
      byLabel(stored.counters?.deadTopics, (topic) => handlers.serves(topic)).map(
        ({ topic, messages }) => [{ peer, topic }, messages] as const,
      ),
    ),
  );
  const eachBacklog = (numberOf: (backlog: Backlog) => number) => () =>
    peers.flatMap(({ name: peer, stored }) =>
      (stored.counters?.databaseBacklog ?? []).map(
        (each) => [{ peer, topic: each.topic, group: each.group, state: each.state }, numberOf(each)] as const,
      ),
    );
  registry.gauge(
    peerMetrics.hawser_peer_database_backlog_messages,
    eachBacklog(({ messages }) => messages),
  );
  registry.gauge(
    peerMetrics.hawser_peer_database_backlog_age_seconds,
    eachBacklog(({ oldestAt }) => secondsSince(oldestAt)),
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

function secondsSince(at: number | undefined): number {
  return at === undefined ? 0 : Math.max(0, performance.now() - at) / 1_000;
}
