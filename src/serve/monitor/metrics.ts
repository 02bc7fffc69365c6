/**
 * Metrics of one `hawser serve`, in a registry of their own, because a process may run several.
 *
 * Most numbers belong to other parts and are read from {@link ServeCounters} at each scrape; a subscription or
 * responder that no longer exists has no time series. Only durations and sizes are reported individually.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import { methods } from "../../../generated/ts/nats-functions/methods.js";
import type { PostgresRole, ResponderStats, StreamCounts, SubscriptionCounts } from "../../bridge/index.js";
import { type ConnectionCounters, natsClients, type ServeCounters } from "./counters.js";

const databaseRoles = ["primary", "standby", "unknown"] as const satisfies readonly PostgresRole[];

/** Outcomes of a call, as its caller sees them. */
export const callOutcomes = ["ok", "error"] as const;

export type CallOutcome = (typeof callOutcomes)[number];

/** Label for unknown methods, because a label must not contain callers' texts. */
const noMethod = "unknown";

/** Buckets in seconds: a publish takes some ten microseconds, a request up to its time limit. */
const callDurationBuckets = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10];
const batchSizeBuckets = [1, 3, 10, 30, 100, 300, 1_000];
/** Buckets in seconds: from one row to a statement timeout, or to the greatest sensible `responder_timeout_ms`. */
const functionDurationBuckets = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30];

type Labels = Readonly<Record<string, string>>;

/** Function that NATS calls, identified for labels. */
type BoundFunction = Pick<ResponderStats, "id" | "subject" | "functionName">;

/** Labels and the value of a series. */
type Sample = readonly [labels: Labels, value: number];

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
export class ServeMetrics {
  readonly #registry = new Registry();
  readonly #counters: ServeCounters;
  readonly #calls: Counter;
  readonly #callDurations: Histogram;
  readonly #batchSizes: Histogram;
  readonly #batchDurations: Histogram;
  readonly #requestDurations: Histogram;
  /** Labels of responders with recorded durations, by id. */
  readonly #observedResponders = new Map<bigint, Labels>();

  constructor({ version, database, counters, now = () => performance.now() }: ServeMetricsOptions) {
    this.#counters = counters;
    this.#registry.setDefaultLabels({ database });
    const build = "Always 1; the label is the running version.";
    this.#gauge("hawser_build_info", build, ["version"], () => [[{ version }, 1]]);
    this.#defineConnections();
    this.#number("hawser_gateway_sessions", "Database sessions connected to the gateway.", () => {
      return counters.gateway?.sessions;
    });
    this.#number(
      "hawser_gateway_unreached_timestamp_seconds",
      "Unix time of the last call that reached no gateway of the database; 0: none.",
      () => counters.gateway?.unreachedAt,
    );
    this.#calls = new Counter({
      name: "hawser_gateway_calls_total",
      help: "Calls of SQL functions that the gateway has answered.",
      labelNames: ["method", "outcome"],
      registers: [this.#registry],
    });
    // All time series begin at zero, because rate() would not see the first error of a time series that begins with 1.
    for (const method of [...Object.keys(methods), noMethod]) {
      for (const outcome of callOutcomes) this.#calls.inc({ method, outcome }, 0);
    }
    this.#callDurations = this.#histogram(
      "hawser_gateway_call_duration_seconds",
      "Time from the arrival of a call to its answer.",
      callDurationBuckets,
      ["method"],
    );
    this.#defineBridge();
    this.#defineSubscriptions(now);
    this.#batchSizes = this.#histogram(
      "hawser_bridge_batch_messages",
      "Messages of a committed transaction.",
      batchSizeBuckets,
    );
    this.#batchDurations = this.#histogram(
      "hawser_bridge_batch_duration_seconds",
      "Duration of a committed transaction with messages.",
      functionDurationBuckets,
    );
    this.#defineStreams();
    this.#defineResponders();
    this.#defineOutbox(now);
    this.#defineStored(now);
    this.#requestDurations = this.#histogram(
      "hawser_responder_request_duration_seconds",
      "Time in the function of a request.",
      functionDurationBuckets,
      responderLabels,
      () => this.#forgetGoneResponders(),
    );
    collectDefaultMetrics({ register: this.#registry });
  }

  /** Media type of {@link text}. */
  get contentType(): string {
    return this.#registry.contentType;
  }

  /**
   * Renders all metrics in Prometheus's text format.
   *
   * @throws (as a rejection) the error of a counter, or if a total is negative or not a number
   */
  text(): Promise<string> {
    return this.#registry.metrics();
  }

  /**
   * Records a call that the gateway has answered. Takes less than a microsecond.
   *
   * @param asked name of the method in the protocol (`Publish`); an unknown one counts as `unknown`
   */
  observeCall(asked: string | undefined, outcome: CallOutcome, durationMs: number): void {
    const method = asked !== undefined && Object.hasOwn(methods, asked) ? asked : noMethod;
    this.#calls.inc({ method, outcome });
    this.#callDurations.observe({ method }, durationMs / 1_000);
  }

  /** Records a transaction with messages that has ended, whatever its outcome. */
  observeBatch(messages: number, durationMs: number): void {
    this.#batchSizes.observe(messages);
    this.#batchDurations.observe(durationMs / 1_000);
  }

  /** Records a request whose function has run, whatever its outcome. */
  observeRequest(responder: BoundFunction, durationMs: number): void {
    let labels = this.#observedResponders.get(responder.id);
    if (labels === undefined) this.#observedResponders.set(responder.id, (labels = labelsOf("responder", responder)));
    this.#requestDurations.observe(labels, durationMs / 1_000);
  }

  /**
   * Releases the counters. The metrics of the garbage collector and the event loop live as long as the process, because
   * prom-client cannot stop them; without this method, they would retain the registry and all counters.
   */
  close(): void {
    this.#registry.clear();
  }

  #defineConnections(): void {
    const counters = this.#counters;
    const ofEach = (numberOf: (connection: ConnectionCounters) => number) => (): Sample[] =>
      natsClients.flatMap((client): Sample[] => {
        const connection = counters.nats[client];
        return connection === undefined ? [] : [[{ client }, numberOf(connection)]];
      });
    this.#gauge(
      "hawser_nats_up",
      "True (1) if this client is connected to NATS.",
      ["client"],
      ofEach(({ isUp }) => Number(isUp)),
    );
    this.#total(
      "hawser_nats_reconnects_total",
      "Reconnections to NATS.",
      ["client"],
      ofEach(({ reconnects }) => reconnects),
    );
    this.#number("hawser_postgres_up", "True (1) if sessions with Postgres can be opened and answer.", () =>
      Number(counters.postgres.isUp),
    );
    this.#total("hawser_postgres_reconnects_total", "Reconnections to Postgres.", [], () => [
      [{}, counters.postgres.reconnects],
    ]);
  }

  #defineBridge(): void {
    const bridge = () => this.#counters.bridge;
    this.#gauge("hawser_bridge_role", "Role of Postgres: 1 for the present one, 0 for the others.", ["role"], () => {
      const present = bridge()?.role ?? "unknown";
      return databaseRoles.map((role) => [{ role }, Number(role === present)]);
    });
    this.#number("hawser_bridge_leading", "True (1) if this process leads.", () =>
      Number(bridge()?.epoch !== undefined),
    );
    this.#number("hawser_bridge_leader_epoch", "Last epoch in which this process led; 0: none.", () =>
      Number(bridge()?.lastEpoch ?? 0),
    );
    this.#number(
      "hawser_bridge_standby_buffer_bytes",
      "Bytes kept for a takeover while another process leads.",
      () => bridge()?.keptBytes,
    );
    this.#total(
      "hawser_bridge_messages_discarded_total",
      "Lost messages, by the buffer that was full.",
      ["reason"],
      () => [
        [{ reason: "buffer_full" }, bridge()?.discarded ?? 0],
        [{ reason: "standby_buffer_full" }, bridge()?.missing ?? 0],
      ],
    );
  }

  #defineSubscriptions(now: () => number): void {
    const ofEach = (numberOf: (counters: SubscriptionCounts) => number) => (): Sample[] =>
      Array.from(this.#counters.bridge?.subscriptions ?? [], (each) => [
        labelsOf("subscription", each),
        numberOf(each),
      ]);
    for (const [name, help, numberOf] of subscriptionGauges(now)) {
      this.#gauge(name, help, subscriptionLabels, ofEach(numberOf));
    }
    for (const [name, help, totalOf] of subscriptionTotals) {
      this.#total(name, help, subscriptionLabels, ofEach(totalOf));
    }
  }

  #defineStreams(): void {
    const ofEach = (numberOf: (counters: StreamCounts) => number) => (): Sample[] =>
      Array.from(this.#counters.bridge?.streams ?? [], (each) => [
        { subscription: each.name, stream: each.stream, function: each.functionName },
        numberOf(each),
      ]);
    for (const [name, help, numberOf] of streamGauges) this.#gauge(name, help, streamLabels, ofEach(numberOf));
    for (const [name, help, totalOf] of streamTotals) this.#total(name, help, streamLabels, ofEach(totalOf));
  }

  #defineResponders(): void {
    const bridge = () => this.#counters.bridge;
    this.#total(
      "hawser_responder_requests_total",
      "Requests to responders of this process, by outcome.",
      [...responderLabels, "outcome"],
      () =>
        [...(bridge()?.responders.responders ?? [])].flatMap((each) =>
          requestOutcomes.map(
            ([outcome, totalOf]): Sample => [{ ...labelsOf("responder", each), outcome }, totalOf(each)],
          ),
        ),
    );
    this.#number("hawser_responder_requests_in_flight", "Requests whose function is running.", () => {
      return bridge()?.responders.running;
    });
    this.#number("hawser_responder_requests_queued", "Requests that wait for a session.", () => {
      return bridge()?.responders.responders.reduce((sum, { waiting }) => sum + waiting, 0);
    });
  }

  #defineOutbox(now: () => number): void {
    const outbox = () => this.#counters.bridge?.outbox;
    this.#number(
      "hawser_outbox_waiting_messages",
      "Messages that this process has read and not published yet; at most 10,000 of each role.",
      () => outbox()?.waiting,
    );
    this.#number(
      "hawser_outbox_oldest_message_age_seconds",
      "Age of the oldest message that this process has not published yet; 0: none.",
      () => {
        const at = outbox()?.oldestAt;
        return at === undefined ? 0 : Math.max(0, Date.now() - at.getTime()) / 1_000;
      },
    );
    this.#number(
      "hawser_outbox_position_age_seconds",
      "Time since the position moved last; 0: no message waits.",
      () => {
        const at = outbox()?.positionAt;
        return at === undefined ? 0 : Math.max(0, now() - at) / 1_000;
      },
    );
    const total = (name: string, help: string, read: () => number | undefined): void => {
      this.#total(name, help, [], () => [[{}, read() ?? 0]]);
    };
    total("hawser_outbox_messages_relayed_total", "Published messages.", () => outbox()?.relayed);
    total(
      "hawser_outbox_messages_refused_total",
      "Messages that NATS has refused, and that became dead letters.",
      () => outbox()?.refused,
    );
    total(
      "hawser_outbox_messages_replayed_total",
      "Published messages of hawser.outbox_replay that their streams have stored again.",
      () => outbox()?.replayed,
    );
    total(
      "hawser_outbox_messages_dropped_total",
      "Published messages that their streams have dropped as duplicates.",
      () => outbox()?.dropped,
    );
  }

  #defineStored(now: () => number): void {
    const waiting = () => Array.from(this.#counters.stored?.waiting ?? []);
    this.#gauge(
      "hawser_outbox_enqueued_messages",
      "Messages not relayed yet, counted up to 10,000, and among the first 50,000 while a role or a destination lags.",
      ["kind"],
      () => waiting().map(({ kind, messages }): Sample => [{ kind }, messages]),
    );
    this.#gauge(
      "hawser_outbox_enqueued_age_seconds",
      "Age of the oldest message that is not relayed yet; 0: none.",
      ["kind"],
      () =>
        waiting().map(({ kind, oldestAt: at }): Sample => {
          return [{ kind }, at === undefined ? 0 : Math.max(0, now() - at) / 1_000];
        }),
    );
    this.#gauge(
      "hawser_recent_dead_letters",
      "Dead letters of the last 10 minutes, up to 10,000 of each origin.",
      ["origin"],
      () =>
        Array.from(this.#counters.stored?.deadLetters ?? [], ({ origin, messages }): Sample => [{ origin }, messages]),
    );
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

  /**
   * Defines a counter whose totals are read at each scrape. A counter without labels is zero if `read` returns nothing.
   */
  #total(name: string, help: string, labelNames: readonly string[], read: () => readonly Sample[]): void {
    new Counter({
      ...{ name, help, labelNames, registers: [this.#registry] },
      collect() {
        this.reset();
        for (const [labels, total] of read()) this.inc(labels, total);
      },
    });
  }

  /** Defines a gauge whose values are read at each scrape. A gauge without labels is zero if `read` returns nothing. */
  #gauge(name: string, help: string, labelNames: readonly string[], read: () => readonly Sample[]): void {
    new Gauge({
      ...{ name, help, labelNames, registers: [this.#registry] },
      collect() {
        this.reset();
        for (const [labels, value] of read()) this.set(labels, value);
      },
    });
  }

  /** Defines a gauge of one number; undefined is shown as 0. */
  #number(name: string, help: string, read: () => number | undefined): void {
    this.#gauge(name, help, [], () => [[{}, read() ?? 0]]);
  }

  #histogram(
    name: string,
    help: string,
    buckets: number[],
    labelNames: readonly string[] = [],
    collect?: () => void,
  ): Histogram {
    return new Histogram({ name, help, buckets, labelNames, registers: [this.#registry], ...(collect && { collect }) });
  }
}

const streamLabels = ["subscription", "stream", "function"] as const;

type StreamMetric = readonly [name: string, help: string, numberOf: (counters: StreamCounts) => number];

const streamGauges: readonly StreamMetric[] = [
  ["hawser_stream_lag_messages", "Messages of the stream that are not done.", ({ lag }) => lag],
  ["hawser_stream_position", "Sequence number up to which all messages are done.", ({ position }) => position],
  [
    "hawser_stream_missing_messages",
    "Messages gone from the stream before they were taken, since the last nats_seek_stream.",
    ({ missing }) => missing,
  ],
  [
    "hawser_stream_reading",
    "True (1) if the stream is being read; if not, hawser.stream_status says why.",
    ({ isReading }) => Number(isReading),
  ],
];

const streamTotals: readonly StreamMetric[] = [
  ["hawser_stream_messages_committed_total", "Messages that this process has committed.", ({ committed }) => committed],
  [
    "hawser_stream_messages_dead_lettered_total",
    "Messages that became dead letters.",
    ({ deadLettered }) => deadLettered,
  ],
];

const subscriptionLabels = ["subscription", "subject", "function"] as const;
const responderLabels = ["responder", "subject", "function"] as const;

function labelsOf(kind: "subscription" | "responder", { id, subject, functionName }: BoundFunction): Labels {
  return { [kind]: String(id), subject, function: functionName };
}

type SubscriptionMetric = readonly [name: string, help: string, numberOf: (counters: SubscriptionCounts) => number];

function subscriptionGauges(now: () => number): readonly SubscriptionMetric[] {
  return [
    [
      "hawser_bridge_queue_messages",
      "Messages that wait for their transaction or are in one.",
      ({ queuedMessages }) => queuedMessages,
    ],
    [
      "hawser_bridge_queue_bytes",
      "Bytes of the queued messages, as --buffer counts them.",
      ({ queuedBytes }) => queuedBytes,
    ],
    [
      "hawser_bridge_saved_messages",
      "Messages in hawser.saved_messages, shown by the leader.",
      ({ savedMessages }) => savedMessages,
    ],
    [
      "hawser_bridge_saved_bytes",
      "Bytes of the saved messages, as --tune savedBytes counts them.",
      ({ savedBytes }) => savedBytes,
    ],
    [
      "hawser_bridge_oldest_message_age_seconds",
      "Age of the oldest message that waits; 0: none waits.",
      ({ oldestReceivedAt: at }) => (at === undefined ? 0 : Math.max(0, now() - at) / 1_000),
    ],
  ];
}

const subscriptionTotals: readonly SubscriptionMetric[] = [
  [
    "hawser_bridge_messages_received_total",
    "Messages that NATS delivered to this process, leading or not.",
    ({ received }) => received,
  ],
  ["hawser_bridge_messages_committed_total", "Messages that this process has committed.", ({ committed }) => committed],
  [
    "hawser_bridge_messages_dead_lettered_total",
    "Messages that became dead letters.",
    ({ deadLettered }) => deadLettered,
  ],
  [
    "hawser_bridge_messages_repeated_total",
    "Messages repeated at a takeover; the previous leader may have committed them.",
    ({ repeated }) => repeated,
  ],
  [
    "hawser_bridge_cuts_total",
    "Lost connections while this process led; messages may be lost.",
    ({ lostConnections }) => lostConnections,
  ],
  [
    "hawser_bridge_transactions_total",
    "Transactions with messages, committed or not.",
    ({ transactions }) => transactions,
  ],
  [
    "hawser_bridge_bisections_total",
    "Batches halved because one of their messages failed.",
    ({ bisections }) => bisections,
  ],
];

const requestOutcomes: readonly (readonly [name: string, totalOf: (counters: ResponderStats) => number])[] = [
  ["ok", ({ requests, errors }) => requests - errors],
  ["failed", ({ errors, busy, timedOut }) => errors - busy - timedOut],
  ["timed_out", ({ timedOut }) => timedOut],
  ["busy", ({ busy }) => busy],
];
