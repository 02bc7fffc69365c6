/**
 * Metrics of one `hawser serve`.
 *
 * Most numbers belong to other parts and are read from {@link ServeCounters} at each scrape; a subscription or
 * responder that no longer exists has no time series. Only durations and sizes are reported individually.
 */
import { type LabelsOf, type Metric, serveMetrics } from "../../../../generated/ts/metrics/metrics.js";
import { methods } from "../../../../generated/ts/nats-functions/methods.js";
import {
  Histogram,
  type Labels,
  labelled,
  type MetricFamily,
  type MetricSource,
  perItem,
  perOutcome,
  type Readers,
  readMetrics,
  type ValueListener,
} from "../../../foundation/monitor/index.js";
import type { ResponderStats, StreamCounts, SubscriptionCounts } from "../../bridge/index.js";
import { natsClients, type ServeCounters } from "./counters.js";
import { ProcessMetrics } from "./process-metrics.js";

/** Outcome of a call, as its caller sees it. */
export type CallOutcome = LabelsOf<typeof serveMetrics.hawser_gateway_calls_total>["outcome"];

/** Used part of the NOTIFY queue from which on the label names a session. */
const namedHolderRatio = 0.1;

/** Label for unknown methods, because a label must not contain callers' texts. */
const noMethod = "unknown";

/** Function that NATS calls, identified for labels. */
type BoundFunction = Pick<ResponderStats, "id" | "subject" | "functionName">;

/** Sources of the metrics. */
export interface ServeMetricsOptions {
  /** Version of this program. */
  readonly version: string;
  /** Label `database` of all metrics. */
  readonly database: string;
  /** Reads the counters. */
  readonly counters: () => ServeCounters;
  /** Current time in ms on the clock of `SubscriptionCounts.oldestReceivedAt`. Default `performance.now`. */
  readonly now?: () => number;
}

/** Metrics of calls, batches and requests, each of which is reported when it ends. */
class Reports {
  /** Answered calls. All begin at zero, because rate() would not see the first error of a time series that begins with 1. */
  readonly calls: ReadonlyMap<string, Record<CallOutcome, number>> = new Map(
    [...Object.keys(methods), noMethod].map((method) => [method, { ok: 0, error: 0 }]),
  );
  readonly callDurations = new Map<string, Histogram>();
  readonly batchSizes = new Histogram(serveMetrics.hawser_bridge_batch_messages);
  readonly batchDurations = new Histogram(serveMetrics.hawser_bridge_batch_duration_seconds);
  /** By the id of the responder. */
  readonly requestDurations = new Map<bigint, Histogram>();
}

/** Source of all metrics at one scrape. */
interface Scrape extends ServeCounters, Reports {
  readonly version: string;
  /** Time of the scrape, on the clock of {@link ServeMetricsOptions.now}. */
  readonly at: number;
  readonly subscriptions: readonly SubscriptionCounts[];
  readonly streams: readonly StreamCounts[];
  readonly responders: readonly ResponderStats[];
}

/** Reads the counters, records individual reports, and gives both as metrics. */
export class ServeMetrics implements MetricSource {
  /** Name of the database. */
  readonly name: string;
  readonly table = serveMetrics;
  readonly #options: Required<ServeMetricsOptions>;
  readonly #reports = new Reports();
  readonly #process = new ProcessMetrics();
  readonly #listeners = new Set<ValueListener>();

  constructor(options: ServeMetricsOptions) {
    this.name = options.database;
    this.#options = { now: () => performance.now(), ...options };
  }

  /** Reads the metrics of the table. @throws the error of `counters` */
  async read(): Promise<MetricFamily[]> {
    const { version, counters, now } = this.#options;
    const counted = counters();
    const scrape: Scrape = {
      ...counted,
      ...this.#reports,
      version,
      at: now(),
      subscriptions: [...(counted.bridge?.subscriptions ?? [])],
      streams: [...(counted.bridge?.streams ?? [])],
      responders: counted.bridge?.responders.responders ?? [],
    };
    return labelled(readMetrics(serveMetrics, readers, scrape), { database: this.name });
  }

  /** Reads the metrics of the table, and those of the process. @throws as {@link read} */
  async readAll(): Promise<MetricFamily[]> {
    return [...(await this.read()), ...labelled(this.#process.read(), { database: this.name })];
  }

  follow(listener: ValueListener): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /**
   * Records a call that the gateway has answered. Takes less than a microsecond.
   *
   * @param asked name of the method in the protocol (`Publish`); an unknown one counts as `unknown`
   */
  observeCall(asked: string | undefined, outcome: CallOutcome, durationMs: number): void {
    const method = asked !== undefined && Object.hasOwn(methods, asked) ? asked : noMethod;
    this.#reports.calls.get(method)![outcome] += 1;
    const metric = serveMetrics.hawser_gateway_call_duration_seconds;
    const durations = histogramOf(this.#reports.callDurations, method, metric);
    this.#observe(durations, metric, { method }, durationMs / 1_000);
  }

  /** Records a transaction with messages that has ended, whatever its outcome. */
  observeBatch(messages: number, durationMs: number): void {
    const { batchSizes, batchDurations } = this.#reports;
    this.#observe(batchSizes, serveMetrics.hawser_bridge_batch_messages, {}, messages);
    this.#observe(batchDurations, serveMetrics.hawser_bridge_batch_duration_seconds, {}, durationMs / 1_000);
  }

  /** Records a request whose function has run, whatever its outcome. */
  observeRequest(responder: BoundFunction, durationMs: number): void {
    const metric = serveMetrics.hawser_responder_request_duration_seconds;
    const durations = histogramOf(this.#reports.requestDurations, responder.id, metric);
    this.#observe(durations, metric, responderLabels(responder), durationMs / 1_000);
  }

  /** Ends the measurements of the process. */
  close(): void {
    this.#process.close();
  }

  #observe(histogram: Histogram, { name }: Metric, labels: Labels, value: number): void {
    histogram.observe(value);
    for (const listener of this.#listeners) listener(name, { ...labels, database: this.name }, value);
  }
}

function histogramOf<Key>(histograms: Map<Key, Histogram>, key: Key, metric: Metric): Histogram {
  let histogram = histograms.get(key);
  if (histogram === undefined) histograms.set(key, (histogram = new Histogram(metric)));
  return histogram;
}

function responderLabels({ id, subject, functionName }: BoundFunction) {
  return { responder: String(id), subject, function: functionName };
}

const perClient = perItem(
  ({ nats }: Scrape) =>
    natsClients.flatMap((client) => {
      const connection = nats[client];
      return connection === undefined ? [] : [{ client, connection }];
    }),
  ({ client }) => ({ client }),
);

const callTotals = perOutcome(
  ({ calls }: Scrape) => [...calls],
  ([method]) => ({ method }),
);

const perSubscription = perItem(
  ({ subscriptions }: Scrape) => subscriptions,
  ({ id, subject, functionName }) => ({ subscription: String(id), subject, function: functionName }),
);

const perStream = perItem(
  ({ streams }: Scrape) => streams,
  ({ name, stream, functionName }) => ({ subscription: name, stream, function: functionName }),
);

const requestTotals = perOutcome(({ responders }: Scrape) => responders, responderLabels);

const perBacklog = perItem(
  ({ stored }: Scrape) => stored?.backlog ?? [],
  ({ topic, group, listener, state }) => ({ topic, group, listener, state }),
);

const perSchedule = perItem(
  ({ stored }: Scrape) => stored?.schedules ?? [],
  ({ name, role, problem }) => ({ schedule: name, role, state: problem === null ? "late" : "failing" }) as const,
);

const perOrigin = perItem(
  ({ stored }: Scrape) => stored?.deadLetters ?? [],
  ({ origin }) => ({ origin }),
);

/** Makes the reader of a metric with one time series; undefined is shown as 0. */
function single(numberOf: (scrape: Scrape) => number | undefined) {
  return (scrape: Scrape) => [[{}, numberOf(scrape) ?? 0]] as const;
}

/** Makes the reader of a metric with one time series, or with none as long as there is no value. */
function known(numberOf: (scrape: Scrape) => number | undefined) {
  return (scrape: Scrape) => {
    const value = numberOf(scrape);
    return value === undefined || Number.isNaN(value) ? [] : ([[{}, value]] as const);
  };
}

const seconds = (ms: number | undefined): number | undefined => (ms === undefined ? undefined : ms / 1_000);

/** Seconds from a time in ms to another one; 0 if there is none. */
function secondsBetween(from: number | undefined, to: number): number {
  return from === undefined ? 0 : Math.max(0, to - from) / 1_000;
}

const readers: Readers<typeof serveMetrics, Scrape> = {
  hawser_build_info: ({ version }) => [[{ version }, 1]],
  hawser_postgres_up: single(({ postgres }) => Number(postgres.isUp)),
  hawser_postgres_reconnects_total: single(({ postgres }) => postgres.reconnects),
  hawser_nats_up: perClient(({ connection }) => Number(connection.isUp)),
  hawser_nats_reconnects_total: perClient(({ connection }) => connection.reconnects),

  hawser_gateway_sessions: single(({ gateway }) => gateway?.sessions),
  hawser_gateway_unreached_timestamp_seconds: known(({ gateway }) => gateway?.unreachedAt),
  hawser_gateway_certificate_ends_timestamp_seconds: known(({ gateway }) => seconds(gateway?.certificateEndsAt)),
  hawser_gateway_calls_total: callTotals(([, totals]) => totals),
  hawser_gateway_call_duration_seconds: ({ callDurations }) =>
    [...callDurations].map(([method, durations]) => [{ method }, durations]),

  hawser_bridge_role: ({ bridge }) =>
    serveMetrics.hawser_bridge_role.values.role.map((role) => [{ role }, Number(role === (bridge?.role ?? "unknown"))]),
  hawser_bridge_leading: single(({ bridge }) => Number(bridge?.epoch !== undefined)),
  hawser_bridge_leader_epoch: known(({ bridge }) => Number(bridge?.lastEpoch ?? 0) || undefined),
  hawser_bridge_messages_received_total: perSubscription(({ received }) => received),
  hawser_bridge_messages_committed_total: perSubscription(({ committed }) => committed),
  hawser_bridge_messages_dead_lettered_total: perSubscription(({ deadLettered }) => deadLettered),
  hawser_bridge_messages_repeated_total: perSubscription(({ repeated }) => repeated),
  hawser_bridge_cuts_total: perSubscription(({ lostConnections }) => lostConnections),
  hawser_bridge_queue_messages: perSubscription(({ queuedMessages }) => queuedMessages),
  hawser_bridge_queue_bytes: perSubscription(({ queuedBytes }) => queuedBytes),
  hawser_bridge_saved_messages: perSubscription(({ savedMessages }) => savedMessages),
  hawser_bridge_saved_bytes: perSubscription(({ savedBytes }) => savedBytes),
  hawser_bridge_oldest_message_age_seconds: perSubscription(({ oldestReceivedAt }, { at }) =>
    secondsBetween(oldestReceivedAt, at),
  ),
  hawser_bridge_messages_discarded_total: ({ bridge }) => [
    [{ reason: "buffer_full" }, bridge?.discarded ?? 0],
    [{ reason: "standby_buffer_full" }, bridge?.missing ?? 0],
  ],
  hawser_bridge_standby_buffer_bytes: single(({ bridge }) => bridge?.keptBytes),
  hawser_bridge_transactions_total: perSubscription(({ transactions }) => transactions),
  hawser_bridge_bisections_total: perSubscription(({ bisections }) => bisections),
  hawser_bridge_batch_messages: ({ batchSizes }) => [[{}, batchSizes]],
  hawser_bridge_batch_duration_seconds: ({ batchDurations }) => [[{}, batchDurations]],

  hawser_stream_lag_messages: perStream(({ lag }) => lag),
  hawser_stream_position: perStream(({ position }) => position),
  hawser_stream_missing_messages: perStream(({ missing }) => missing),
  hawser_stream_reading: perStream(({ isReading }) => Number(isReading)),
  hawser_stream_messages_committed_total: perStream(({ committed }) => committed),
  hawser_stream_messages_dead_lettered_total: perStream(({ deadLettered }) => deadLettered),

  hawser_responder_requests_total: requestTotals(({ requests, errors, busy, timedOut }) => ({
    ok: requests - errors,
    failed: errors - busy - timedOut,
    timed_out: timedOut,
    busy,
  })),
  hawser_responder_requests_in_flight: single(({ bridge }) => bridge?.responders.running),
  hawser_responder_requests_queued: single(({ responders }) =>
    responders.reduce((sum, { waiting }) => sum + waiting, 0),
  ),
  hawser_responder_request_duration_seconds: ({ responders, requestDurations }) => {
    const present = new Map(responders.map((responder) => [responder.id, responder]));
    // Those that are gone, too, whose last request ended later.
    for (const id of requestDurations.keys()) if (!present.has(id)) requestDurations.delete(id);
    return [...requestDurations].map(([id, durations]) => [responderLabels(present.get(id)!), durations]);
  },

  hawser_outbox_waiting_messages: single(({ bridge }) => bridge?.outbox.waiting),
  hawser_outbox_oldest_message_age_seconds: single(({ bridge }) =>
    secondsBetween(bridge?.outbox.oldestAt?.getTime(), Date.now()),
  ),
  hawser_outbox_position_age_seconds: single(({ bridge, at }) => secondsBetween(bridge?.outbox.positionAt, at)),
  hawser_outbox_messages_relayed_total: single(({ bridge }) => bridge?.outbox.relayed),
  hawser_outbox_messages_refused_total: single(({ bridge }) => bridge?.outbox.refused),
  hawser_outbox_messages_replayed_total: single(({ bridge }) => bridge?.outbox.replayed),
  hawser_outbox_messages_dropped_total: single(({ bridge }) => bridge?.outbox.dropped),
  hawser_outbox_enqueued_messages: single(({ stored }) => stored?.waiting.messages),
  hawser_outbox_enqueued_age_seconds: single(({ stored, at }) => secondsBetween(stored?.waiting.oldestAt, at)),
  hawser_recent_dead_letters: perOrigin(({ messages }) => messages),

  hawser_notify_queue_ratio: ({ stored }) => {
    if (stored === undefined) return [];
    const { used, holder } = stored.notifyQueue;
    // Below this limit no session is named: each short transaction would make a series of its own.
    const pid = used < namedHolderRatio ? undefined : holder?.pid;
    return [[{ pid: pid === undefined ? "" : String(pid) }, used]];
  },
  hawser_backlog_messages: perBacklog(({ messages }) => messages),
  hawser_backlog_has_more: perBacklog(({ hasMore }) => Number(hasMore)),
  hawser_backlog_age_seconds: perBacklog(({ oldestAt }, { at }) => secondsBetween(oldestAt, at)),
  hawser_schedule_stuck: perSchedule(() => 1),
};
