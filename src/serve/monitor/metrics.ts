/**
 * Metrics of one `hawser serve`, in a registry of their own, because a process may run several.
 *
 * Most numbers belong to other parts and are read from {@link ServeCounters} at each scrape; a subscription or
 * responder that no longer exists has no time series. Only durations and sizes are reported individually.
 */
import type { Counter, Histogram } from "prom-client";
import { type LabelsOf, type Metric, serveMetrics } from "../../../generated/ts/metrics/metrics.js";
import { methods } from "../../../generated/ts/nats-functions/methods.js";
import type { ResponderStats, StreamCounts, SubscriptionCounts } from "../../bridge/index.js";
import { MetricRegistry, type Sample } from "../../monitor/index.js";
import type { MetricSource, ValueListener } from "../../runtime/index.js";
import type { Backlog } from "../../store/index.js";
import { type ConnectionCounters, natsClients, type ServeCounters } from "./counters.js";

/** Outcome of a call, as its caller sees it. */
export type CallOutcome = LabelsOf<typeof serveMetrics.hawser_gateway_calls_total>["outcome"];

/** Used part of the NOTIFY queue from which on the label names a session. */
const namedHolderRatio = 0.1;

/** Label for unknown methods, because a label must not contain callers' texts. */
const noMethod = "unknown";

type ResponderLabels = LabelsOf<typeof serveMetrics.hawser_responder_request_duration_seconds>;

/** Function that NATS calls, identified for labels. */
type BoundFunction = Pick<ResponderStats, "id" | "subject" | "functionName">;

/** Sources of the metrics. */
export interface ServeMetricsOptions {
  /** Version of this program. */
  readonly version: string;
  /** Label `database` of all metrics. */
  readonly database: string;
  /** Counters, read at each scrape. */
  readonly counters: ServeCounters;
  /** Current time in ms on the clock of `SubscriptionCounts.oldestReceivedAt`. Default `performance.now`. */
  readonly now?: (() => number) | undefined;
}

/** Defines the metrics, records individual reports, and renders the page. */
export class ServeMetrics implements MetricSource {
  /** Name of the database. */
  readonly name: string;
  readonly table = serveMetrics;
  readonly #listeners = new Set<ValueListener>();
  readonly #registry: MetricRegistry;
  readonly #counters: ServeCounters;
  readonly #calls: Counter;
  readonly #callDurations: Histogram;
  readonly #batchSizes: Histogram;
  readonly #batchDurations: Histogram;
  readonly #requestDurations: Histogram;
  /** Labels of responders with recorded durations, by id. */
  readonly #observedResponders = new Map<bigint, ResponderLabels>();

  constructor({ version, database, counters, now = () => performance.now() }: ServeMetricsOptions) {
    this.name = database;
    this.#counters = counters;
    this.#registry = new MetricRegistry({ database });
    const registry = this.#registry;
    registry.gauge(serveMetrics.hawser_build_info, () => [[{ version }, 1]]);
    this.#defineConnections();
    registry.number(serveMetrics.hawser_gateway_sessions, () => counters.gateway?.sessions);
    registry.number(serveMetrics.hawser_gateway_unreached_timestamp_seconds, () => counters.gateway?.unreachedAt);
    this.#calls = registry.counter(serveMetrics.hawser_gateway_calls_total);
    // All time series begin at zero, because rate() would not see the first error of a time series that begins with 1.
    for (const method of [...Object.keys(methods), noMethod]) {
      for (const outcome of serveMetrics.hawser_gateway_calls_total.values.outcome) {
        this.#calls.inc({ method, outcome }, 0);
      }
    }
    this.#callDurations = registry.histogram(serveMetrics.hawser_gateway_call_duration_seconds);
    this.#defineBridge();
    this.#defineSubscriptions(now);
    this.#batchSizes = registry.histogram(serveMetrics.hawser_bridge_batch_messages);
    this.#batchDurations = registry.histogram(serveMetrics.hawser_bridge_batch_duration_seconds);
    this.#defineStreams();
    this.#defineResponders();
    this.#defineOutbox(now);
    this.#defineStored(now);
    this.#defineNotifyQueue();
    this.#requestDurations = registry.histogram(serveMetrics.hawser_responder_request_duration_seconds, () =>
      this.#forgetGoneResponders(),
    );
    registry.addProcessMetrics();
  }

  /** Media type of {@link text}. */
  get contentType(): string {
    return this.#registry.contentType;
  }

  /** Renders all metrics. @throws as {@link MetricRegistry.text} */
  text(): Promise<string> {
    return this.#registry.text();
  }

  read(): ReturnType<MetricRegistry["read"]> {
    return this.#registry.read();
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
    this.#calls.inc({ method, outcome });
    this.#observe(
      this.#callDurations,
      serveMetrics.hawser_gateway_call_duration_seconds,
      { method },
      durationMs / 1_000,
    );
  }

  /** Records a transaction with messages that has ended, whatever its outcome. */
  observeBatch(messages: number, durationMs: number): void {
    this.#observe(this.#batchSizes, serveMetrics.hawser_bridge_batch_messages, {}, messages);
    this.#observe(this.#batchDurations, serveMetrics.hawser_bridge_batch_duration_seconds, {}, durationMs / 1_000);
  }

  /** Records a request whose function has run, whatever its outcome. */
  observeRequest(responder: BoundFunction, durationMs: number): void {
    let labels = this.#observedResponders.get(responder.id);
    if (labels === undefined) this.#observedResponders.set(responder.id, (labels = labelsOfResponder(responder)));
    const metric = serveMetrics.hawser_responder_request_duration_seconds;
    this.#observe(this.#requestDurations, metric, labels, durationMs / 1_000);
  }

  /** Releases the counters: see {@link MetricRegistry.close}. */
  close(): void {
    this.#registry.close();
  }

  #observe<Of extends Metric>(histogram: Histogram, { name }: Of, labels: LabelsOf<Of>, value: number): void {
    histogram.observe(labels, value);
    for (const listener of this.#listeners) listener(name, { ...labels, database: this.name }, value);
  }

  #defineConnections(): void {
    const counters = this.#counters;
    const ofEach = (numberOf: (connection: ConnectionCounters) => number) => () =>
      natsClients.flatMap((client): Sample<typeof serveMetrics.hawser_nats_up>[] => {
        const connection = counters.nats[client];
        return connection === undefined ? [] : [[{ client }, numberOf(connection)]];
      });
    this.#registry.gauge(
      serveMetrics.hawser_nats_up,
      ofEach(({ isUp }) => Number(isUp)),
    );
    this.#registry.total(
      serveMetrics.hawser_nats_reconnects_total,
      ofEach(({ reconnects }) => reconnects),
    );
    this.#registry.number(serveMetrics.hawser_postgres_up, () => Number(counters.postgres.isUp));
    this.#registry.total(serveMetrics.hawser_postgres_reconnects_total, () => [[{}, counters.postgres.reconnects]]);
  }

  #defineBridge(): void {
    const bridge = () => this.#counters.bridge;
    this.#registry.gauge(serveMetrics.hawser_bridge_role, () => {
      const present = bridge()?.role ?? "unknown";
      return serveMetrics.hawser_bridge_role.values.role.map((role) => [{ role }, Number(role === present)] as const);
    });
    this.#registry.number(serveMetrics.hawser_bridge_leading, () => Number(bridge()?.epoch !== undefined));
    this.#registry.number(serveMetrics.hawser_bridge_leader_epoch, () => Number(bridge()?.lastEpoch ?? 0));
    this.#registry.number(serveMetrics.hawser_bridge_standby_buffer_bytes, () => bridge()?.keptBytes);
    this.#registry.total(serveMetrics.hawser_bridge_messages_discarded_total, () => [
      [{ reason: "buffer_full" }, bridge()?.discarded ?? 0],
      [{ reason: "standby_buffer_full" }, bridge()?.missing ?? 0],
    ]);
  }

  #defineSubscriptions(now: () => number): void {
    const ofEach = (numberOf: (counters: SubscriptionCounts) => number) => () =>
      Array.from(
        this.#counters.bridge?.subscriptions ?? [],
        (each) =>
          [
            { subscription: String(each.id), subject: each.subject, function: each.functionName },
            numberOf(each),
          ] as const,
      );
    for (const [metric, numberOf] of subscriptionGauges(now)) this.#registry.gauge(metric, ofEach(numberOf));
    for (const [metric, totalOf] of subscriptionTotals) this.#registry.total(metric, ofEach(totalOf));
  }

  #defineStreams(): void {
    const ofEach = (numberOf: (counters: StreamCounts) => number) => () =>
      Array.from(
        this.#counters.bridge?.streams ?? [],
        (each) =>
          [{ subscription: each.name, stream: each.stream, function: each.functionName }, numberOf(each)] as const,
      );
    for (const [metric, numberOf] of streamGauges) this.#registry.gauge(metric, ofEach(numberOf));
    for (const [metric, totalOf] of streamTotals) this.#registry.total(metric, ofEach(totalOf));
  }

  #defineResponders(): void {
    const bridge = () => this.#counters.bridge;
    this.#registry.total(serveMetrics.hawser_responder_requests_total, () =>
      [...(bridge()?.responders.responders ?? [])].flatMap((each) =>
        requestOutcomes.map(([outcome, totalOf]) => [{ ...labelsOfResponder(each), outcome }, totalOf(each)] as const),
      ),
    );
    this.#registry.number(serveMetrics.hawser_responder_requests_in_flight, () => bridge()?.responders.running);
    this.#registry.number(serveMetrics.hawser_responder_requests_queued, () =>
      bridge()?.responders.responders.reduce((sum, { waiting }) => sum + waiting, 0),
    );
  }

  #defineOutbox(now: () => number): void {
    const outbox = () => this.#counters.bridge?.outbox;
    this.#registry.number(serveMetrics.hawser_outbox_waiting_messages, () => outbox()?.waiting);
    this.#registry.number(serveMetrics.hawser_outbox_oldest_message_age_seconds, () => {
      const at = outbox()?.oldestAt;
      return at === undefined ? 0 : Math.max(0, Date.now() - at.getTime()) / 1_000;
    });
    this.#registry.number(serveMetrics.hawser_outbox_position_age_seconds, () => {
      const at = outbox()?.positionAt;
      return at === undefined ? 0 : Math.max(0, now() - at) / 1_000;
    });
    const total = (
      metric: Metric & { readonly type: "counter"; readonly labels: readonly [] },
      read: () => number | undefined,
    ): void => this.#registry.total(metric, () => [[{}, read() ?? 0]]);
    total(serveMetrics.hawser_outbox_messages_relayed_total, () => outbox()?.relayed);
    total(serveMetrics.hawser_outbox_messages_refused_total, () => outbox()?.refused);
    total(serveMetrics.hawser_outbox_messages_replayed_total, () => outbox()?.replayed);
    total(serveMetrics.hawser_outbox_messages_dropped_total, () => outbox()?.dropped);
  }

  #defineStored(now: () => number): void {
    const waiting = () => this.#counters.stored?.waiting;
    this.#registry.number(serveMetrics.hawser_outbox_enqueued_messages, () => waiting()?.messages);
    this.#registry.number(serveMetrics.hawser_outbox_enqueued_age_seconds, () => {
      const counted = waiting();
      return counted && (counted.oldestAt === undefined ? 0 : Math.max(0, now() - counted.oldestAt) / 1_000);
    });
    const eachBacklog = (numberOf: (backlog: Backlog) => number) => () =>
      Array.from(
        this.#counters.stored?.backlog ?? [],
        (each) => [{ topic: each.topic, group: each.group, state: each.state }, numberOf(each)] as const,
      );
    this.#registry.gauge(
      serveMetrics.hawser_backlog_messages,
      eachBacklog(({ messages }) => messages),
    );
    this.#registry.gauge(
      serveMetrics.hawser_backlog_age_seconds,
      eachBacklog(({ oldestAt }) => Math.max(0, now() - oldestAt) / 1_000),
    );
    this.#registry.gauge(serveMetrics.hawser_recent_dead_letters, () =>
      Array.from(this.#counters.stored?.deadLetters ?? [], ({ origin, messages }) => [{ origin }, messages] as const),
    );
  }

  #defineNotifyQueue(): void {
    this.#registry.gauge(serveMetrics.hawser_notify_queue_ratio, () => {
      const queue = this.#counters.stored?.notifyQueue;
      if (queue === undefined) return [];
      // Below this limit no session is named: each short transaction would make a series of its own.
      const pid = queue.used < namedHolderRatio ? undefined : queue.holder?.pid;
      return [[{ pid: pid === undefined ? "" : String(pid) }, queue.used] as const];
    });
  }

  /** Removes the series of responders that no longer exist, including those whose last request ended later. */
  #forgetGoneResponders(): void {
    const present = new Set(this.#counters.bridge?.responders.responders.map(({ id }) => id));
    for (const [id, labels] of this.#observedResponders) {
      if (present.has(id)) continue;
      this.#observedResponders.delete(id);
      this.#requestDurations.remove(labels);
    }
  }
}

const streamGauges = [
  [serveMetrics.hawser_stream_lag_messages, ({ lag }: StreamCounts) => lag],
  [serveMetrics.hawser_stream_position, ({ position }: StreamCounts) => position],
  [serveMetrics.hawser_stream_missing_messages, ({ missing }: StreamCounts) => missing],
  [serveMetrics.hawser_stream_reading, ({ isReading }: StreamCounts) => Number(isReading)],
] as const;

const streamTotals = [
  [serveMetrics.hawser_stream_messages_committed_total, ({ committed }: StreamCounts) => committed],
  [serveMetrics.hawser_stream_messages_dead_lettered_total, ({ deadLettered }: StreamCounts) => deadLettered],
] as const;

function labelsOfResponder({ id, subject, functionName }: BoundFunction): ResponderLabels {
  return { responder: String(id), subject, function: functionName };
}

function subscriptionGauges(now: () => number) {
  return [
    [serveMetrics.hawser_bridge_queue_messages, ({ queuedMessages }: SubscriptionCounts) => queuedMessages],
    [serveMetrics.hawser_bridge_queue_bytes, ({ queuedBytes }: SubscriptionCounts) => queuedBytes],
    [serveMetrics.hawser_bridge_saved_messages, ({ savedMessages }: SubscriptionCounts) => savedMessages],
    [serveMetrics.hawser_bridge_saved_bytes, ({ savedBytes }: SubscriptionCounts) => savedBytes],
    [
      serveMetrics.hawser_bridge_oldest_message_age_seconds,
      ({ oldestReceivedAt: at }: SubscriptionCounts) => (at === undefined ? 0 : Math.max(0, now() - at) / 1_000),
    ],
  ] as const;
}

const subscriptionTotals = [
  [serveMetrics.hawser_bridge_messages_received_total, ({ received }: SubscriptionCounts) => received],
  [serveMetrics.hawser_bridge_messages_committed_total, ({ committed }: SubscriptionCounts) => committed],
  [serveMetrics.hawser_bridge_messages_dead_lettered_total, ({ deadLettered }: SubscriptionCounts) => deadLettered],
  [serveMetrics.hawser_bridge_messages_repeated_total, ({ repeated }: SubscriptionCounts) => repeated],
  [serveMetrics.hawser_bridge_cuts_total, ({ lostConnections }: SubscriptionCounts) => lostConnections],
  [serveMetrics.hawser_bridge_transactions_total, ({ transactions }: SubscriptionCounts) => transactions],
  [serveMetrics.hawser_bridge_bisections_total, ({ bisections }: SubscriptionCounts) => bisections],
] as const;

const requestOutcomes = [
  ["ok", ({ requests, errors }: ResponderStats) => requests - errors],
  ["failed", ({ errors, busy, timedOut }: ResponderStats) => errors - busy - timedOut],
  ["timed_out", ({ timedOut }: ResponderStats) => timedOut],
  ["busy", ({ busy }: ResponderStats) => busy],
] as const;
