/**
 * Metrics of the subscriptions: who leads, what waits, and what became of the messages.
 */
import { Histogram, type Registry } from "prom-client";
import { type BoundFunction, databaseRoles, type ServeCounters, type SubscriptionCounters } from "./counters.js";
import { readCounter, readGauge, readNumber, readTotal } from "./read-metrics.js";

const batchSizeBuckets = [1, 3, 10, 30, 100, 300, 1_000];

/** In seconds: from one row to a statement timeout. */
const batchDurationBuckets = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30];

/** See above. */
export class SubscriptionMetrics {
  readonly #sizes: Histogram;
  readonly #durations: Histogram;

  constructor(registry: Registry, counters: ServeCounters, now: () => number) {
    defineLeading(registry, counters);
    defineQueue(registry, counters, now);
    defineTransactions(registry, counters);
    defineMessages(registry, counters);
    this.#sizes = new Histogram({
      name: "hawser_bridge_batch_messages",
      help: "How many messages a batch had when its first transaction began.",
      buckets: batchSizeBuckets,
      registers: [registry],
    });
    this.#durations = new Histogram({
      name: "hawser_bridge_batch_duration_seconds",
      help: "How long a batch took, until all its messages were committed or in dead_letters.",
      buckets: batchDurationBuckets,
      registers: [registry],
    });
  }

  observeBatch(messages: number, durationMs: number): void {
    this.#sizes.observe(messages);
    this.#durations.observe(durationMs / 1_000);
  }
}

function defineLeading(registry: Registry, counters: ServeCounters): void {
  readGauge(
    registry,
    {
      name: "hawser_bridge_role",
      help: "What Postgres is: 1 for the present role, 0 for the others.",
      labels: ["role"],
    },
    () => {
      const present = counters.bridge?.role ?? "unknown";
      return databaseRoles.map((role) => [{ role }, Number(role === present)]);
    },
  );
  readNumber(registry, "hawser_bridge_leading", "Whether this process runs the subscribed functions: 1 or 0.", () =>
    Number(counters.bridge?.isLeading ?? false),
  );
  readNumber(
    registry,
    "hawser_bridge_leader_epoch",
    "The leader's epoch that this process has or last had; 0 if it never led.",
    () => counters.bridge?.leaderEpoch ?? 0,
  );
}

function defineQueue(registry: Registry, counters: ServeCounters, now: () => number): void {
  readNumber(
    registry,
    "hawser_bridge_queue_messages",
    "Messages that wait for their transaction or are in one.",
    () => counters.bridge?.queuedMessages ?? 0,
  );
  readNumber(
    registry,
    "hawser_bridge_queue_bytes",
    "What the messages in the queue count for against its limit.",
    () => counters.bridge?.queuedBytes ?? 0,
  );
  readNumber(
    registry,
    "hawser_bridge_oldest_message_age_seconds",
    "How long ago the oldest message in the queue was received; 0 if the queue is empty.",
    () => {
      const receivedAt = counters.bridge?.oldestReceivedAt;
      return receivedAt === undefined ? 0 : Math.max(0, now() - receivedAt) / 1_000;
    },
  );
  readNumber(
    registry,
    "hawser_bridge_standby_buffer_bytes",
    "What this process keeps, while another one leads, to repeat it at a takeover.",
    () => counters.bridge?.standbyBufferBytes ?? 0,
  );
}

function defineTransactions(registry: Registry, counters: ServeCounters): void {
  readCounter(
    registry,
    {
      name: "hawser_bridge_transactions_total",
      help: "Transactions with messages of subscriptions, by how they ended: committed or failed.",
      labels: ["outcome"],
    },
    () => [
      [{ outcome: "committed" }, counters.bridge?.committedTransactions ?? 0],
      [{ outcome: "failed" }, counters.bridge?.failedTransactions ?? 0],
    ],
  );
  readTotal(
    registry,
    "hawser_bridge_bisections_total",
    "Batches that were halved because a message of theirs failed.",
    () => counters.bridge?.bisections ?? 0,
  );
}

function defineMessages(registry: Registry, counters: ServeCounters): void {
  const define = (name: string, help: string, totalOf: (counters: SubscriptionCounters) => number): void =>
    readCounter(registry, { name, help, labels: ["subscription", "function"] }, function* () {
      for (const each of counters.bridge?.subscriptions ?? []) yield [labelsOf(each), totalOf(each)];
    });
  define(
    "hawser_bridge_messages_received_total",
    "Messages that NATS delivered to this process, whether it leads or not.",
    ({ received }) => received,
  );
  define(
    "hawser_bridge_messages_committed_total",
    "Messages whose function was run and committed by this process.",
    ({ committed }) => committed,
  );
  define(
    "hawser_bridge_messages_dead_lettered_total",
    "Messages that failed for good and went to dead_letters.",
    ({ deadLettered }) => deadLettered,
  );
  define(
    "hawser_bridge_messages_repeated_total",
    "Messages taken from the standby buffer at a takeover; the leader before may have committed them.",
    ({ repeated }) => repeated,
  );
  readCounter(
    registry,
    {
      name: "hawser_bridge_messages_discarded_total",
      help: "Messages that are lost, by reason: buffer_full, the queue had reached its limit.",
      labels: ["subscription", "function", "reason"],
    },
    function* () {
      for (const each of counters.bridge?.subscriptions ?? []) {
        yield [{ ...labelsOf(each), reason: "buffer_full" }, each.discardedBufferFull];
      }
    },
  );
}

function labelsOf({ id, functionName }: BoundFunction): Record<"subscription" | "function", string> {
  return { subscription: String(id), function: functionName };
}
