/**
 * Metrics of the subscriptions: who leads, what waits, and what became of the messages.
 */
import { Histogram, type Registry } from "prom-client";
import { databaseRoles, type ServeCounters, type SubscriptionCounters } from "./counters.js";
import { readCounter, readGauge, readNumber, type Sample } from "./read-metrics.js";

const batchSizeBuckets = [1, 3, 10, 30, 100, 300, 1_000];

/** In seconds: from one row to a statement timeout. */
const batchDurationBuckets = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30];

/** See above. */
export class SubscriptionMetrics {
  readonly #sizes: Histogram;
  readonly #durations: Histogram;

  constructor(registry: Registry, counters: ServeCounters, now: () => number) {
    defineLeading(registry, counters);
    defineBuffers(registry, counters);
    defineQueues(registry, counters, now);
    defineTotals(registry, counters);
    this.#sizes = new Histogram({
      name: "hawser_bridge_batch_messages",
      help: "How many messages one committed transaction had.",
      buckets: batchSizeBuckets,
      registers: [registry],
    });
    this.#durations = new Histogram({
      name: "hawser_bridge_batch_duration_seconds",
      help: "How long a committed transaction with messages took.",
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

function defineBuffers(registry: Registry, counters: ServeCounters): void {
  readNumber(
    registry,
    "hawser_bridge_standby_buffer_bytes",
    "What this process keeps, while another one leads, to repeat it at a takeover.",
    () => counters.bridge?.standbyBufferBytes ?? 0,
  );
  readCounter(
    registry,
    {
      name: "hawser_bridge_messages_discarded_total",
      help: "Messages that are lost, by reason: the queues had reached their limit, or, at a takeover, the standby buffer had.",
      labels: ["reason"],
    },
    () => [
      [{ reason: "buffer_full" }, counters.bridge?.discardedBufferFull ?? 0],
      [{ reason: "standby_buffer_full" }, counters.bridge?.discardedStandbyBufferFull ?? 0],
    ],
  );
}

type NumberOf = (counters: SubscriptionCounters) => number;

function defineQueues(registry: Registry, counters: ServeCounters, now: () => number): void {
  const define = (name: string, help: string, numberOf: NumberOf): void =>
    readGauge(registry, { name, help, labels }, () => ofEach(counters, numberOf));
  define(
    "hawser_bridge_queue_messages",
    "Messages that wait for their transaction or are in one.",
    ({ queuedMessages }) => queuedMessages,
  );
  define(
    "hawser_bridge_queue_bytes",
    "What the messages in the queue count for against the limit of all queues.",
    ({ queuedBytes }) => queuedBytes,
  );
  define(
    "hawser_bridge_saved_messages",
    "Messages in hawser.saved_messages, told by the process that leads; those that were run are deleted page by page.",
    ({ savedMessages }) => savedMessages,
  );
  define(
    "hawser_bridge_saved_bytes",
    "What the messages in hawser.saved_messages count for against --saved-bytes.",
    ({ savedBytes }) => savedBytes,
  );
  define(
    "hawser_bridge_oldest_message_age_seconds",
    "How long ago the oldest message was received, or saved, that is in the queue or in the table; 0: there is none.",
    ({ oldestReceivedAt: at }) => (at === undefined ? 0 : Math.max(0, now() - at) / 1_000),
  );
}

function defineTotals(registry: Registry, counters: ServeCounters): void {
  const define = (name: string, help: string, totalOf: NumberOf): void =>
    readCounter(registry, { name, help, labels }, () => ofEach(counters, totalOf));
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
  define(
    "hawser_bridge_cuts_total",
    "How often the connection on which they come was lost while this process led; what the server had left may be lost.",
    ({ cuts }) => cuts,
  );
  define(
    "hawser_bridge_transactions_total",
    "Transactions with messages, whatever became of them.",
    ({ transactions }) => transactions,
  );
  define(
    "hawser_bridge_bisections_total",
    "Batches that were halved because one of their messages failed.",
    ({ bisections }) => bisections,
  );
}

const labels = ["subscription", "subject", "function"] as const;

function* ofEach(counters: ServeCounters, numberOf: NumberOf): Iterable<Sample<(typeof labels)[number]>> {
  for (const each of counters.bridge?.subscriptions ?? []) {
    const { id, subject, functionName } = each;
    yield [{ subscription: String(id), subject, function: functionName }, numberOf(each)];
  }
}
