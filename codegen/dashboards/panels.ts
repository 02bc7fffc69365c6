/** Panels of the Grafana dashboards: one for each metric of a group, in rows. Units, legends and queries follow from the metrics. */

/** Dashboard of a group of metrics. */
export interface DashboardPlan {
  /** Name of its file, without `.json`, which is its uid, too: links to the dashboard contain it. */
  readonly uid: string;
  readonly title: string;
  /** The label, beside `job` and `instance`, by whose values users choose what they see. Each metric has it. */
  readonly by: string;
  /** Metric by whose label `topic` users choose a topic. */
  readonly topics: string;
  /** The first row: what one sees at a glance. */
  readonly numbers: readonly NumberPlan[];
  /** Panels by the title of their row: metric, title, and how it is shown. */
  readonly rows: Readonly<Record<string, readonly (readonly [metric: string, title: string, looks?: PanelLooks])[]>>;
}

/** Number of the first row. */
export interface NumberPlan extends Limits {
  readonly title: string;
  /** What it counts, and where to look if it is high. */
  readonly description: string;
  /** In PromQL. `FILTER` is the selector of the chosen series, `FILTER_TOPIC` that of series with a topic. */
  readonly expression: string;
  readonly unit: string;
  /** Path of the operator's page that has more. */
  readonly page: string;
}

/** Values from which a number is shown in another colour, as the alerts have them. Without them it has none. */
interface Limits {
  readonly warnFrom?: number;
  readonly badFrom?: number;
}

export interface PanelLooks extends Limits {
  /**
   * Combination of the time series of several processes. By default, counters and histograms are added up, and gauges
   * have a line for each process. `each`: a line for each process. `max`: the greatest value, because each process shows
   * the number of the whole database.
   */
  readonly processes?: "each" | "max";
  /** Unit in Grafana where it does not follow from the metric: `bool_yes_no` is shown as states over time. */
  readonly unit?: string;
  /** Of `bool_yes_no`: the value while all is well. `either`: both. Default `yes`. */
  readonly well?: "yes" | "no" | "either";
  /** What to look at, and what to do. */
  readonly look?: string;
}

/** Age of the oldest message that somebody should take. Paused, held and put-off ones wait on purpose. */
const oldest = (metric: string): string =>
  `max(max by (database, topic, group, state) (${metric}{FILTER_TOPIC, state!~"paused|held|retrying"})) or vector(0)`;

/** Dashboards by the message of their metrics. */
export const dashboards: Readonly<Record<string, DashboardPlan>> = {
  "hawser.metrics.v1.ServeMetrics": {
    uid: "hawser-serve",
    title: "Hawser: serve",
    by: "database",
    topics: "hawser_backlog_age_seconds",
    numbers: [
      {
        title: "Oldest message that waits",
        description:
          "For peers and workers, without paused, held and put-off ones. High: look which topic it is, and whether somebody serves it.",
        expression: oldest("hawser_backlog_age_seconds"),
        unit: "s",
        warnFrom: 60,
        badFrom: 300,
        page: "/backlog",
      },
      {
        title: "Messages that wait",
        description: "For peers and workers. Look whether it grows.",
        expression: "sum(max by (database, topic, group, state) (hawser_backlog_messages{FILTER_TOPIC})) or vector(0)",
        unit: "short",
        page: "/backlog",
      },
      {
        title: "Dead letters in 10 minutes",
        description: "Of peers, workers, subscriptions and the outbox. Above 0: the page has them by cause.",
        expression: "sum(max by (database, origin) (hawser_recent_dead_letters{FILTER})) or vector(0)",
        unit: "short",
        warnFrom: 1,
        badFrom: 100,
        page: "/dead",
      },
      {
        title: "Lost connections",
        description: "To Postgres and NATS, of all processes. Above 0: /readyz of the process says why.",
        expression:
          "(count(hawser_postgres_up{FILTER} == 0) or vector(0)) + (count(hawser_nats_up{FILTER} == 0) or vector(0))",
        unit: "short",
        badFrom: 1,
        page: "/",
      },
    ],
    rows: {
      Connections: [
        ["hawser_build_info", "Versions"],
        [
          "hawser_postgres_up",
          "Postgres",
          {
            unit: "bool_yes_no",
            look: "No: /readyz of the process says why. Do not restart hawser serve: messages wait in its memory.",
          },
        ],
        [
          "hawser_postgres_reconnects_total",
          "Reconnections to Postgres",
          { look: "Each one is a restart, a failover or a cut connection: compare with the log of Postgres." },
        ],
        [
          "hawser_nats_up",
          "NATS",
          { unit: "bool_yes_no", look: "No: /readyz of the process says why. It reconnects by itself." },
        ],
        [
          "hawser_nats_reconnects_total",
          "Reconnections to NATS",
          {
            look: "Rises without a restart of NATS: a slow consumer, or the network. The log of the process names the client.",
          },
        ],
      ],
      "Gateway: from SQL to NATS": [
        ["hawser_gateway_sessions", "Sessions", { look: "Each holds a place: compare with --tune maxSessions." }],
        [
          "hawser_gateway_unreached_timestamp_seconds",
          "Last call that reached no gateway",
          { processes: "max", look: "If it is young: hawser doctor names the address that Postgres cannot reach." },
        ],
        [
          "hawser_gateway_certificate_ends_timestamp_seconds",
          "End of the certificate",
          { look: "Renew it in time: the process reads the file of --tls-cert again by itself." },
        ],
        [
          "hawser_gateway_calls_total",
          "Calls",
          { look: "Compare ok with error. The caller has the reason as an SQL error." },
        ],
        [
          "hawser_gateway_call_duration_seconds",
          "Duration of calls",
          { look: "Request takes as long as who answers it; others should be near the median of yesterday." },
        ],
      ],
      "Bridge: from NATS to SQL": [
        [
          "hawser_bridge_role",
          "Role of Postgres",
          {
            unit: "bool_yes_no",
            well: "either",
            look: "It changes with a failover. A standby answers calls, and runs no functions.",
          },
        ],
        [
          "hawser_bridge_leading",
          "Leader",
          {
            unit: "bool_yes_no",
            well: "either",
            look: "One process of a database leads; none for a minute is an alert.",
          },
        ],
        [
          "hawser_bridge_leader_epoch",
          "Epoch",
          { unit: "none", look: "It rises with each change of the leader: several in an hour are too many." },
        ],
        [
          "hawser_bridge_messages_received_total",
          "Received messages",
          { processes: "each", look: "Each process receives the same; only the leader commits them." },
        ],
        [
          "hawser_bridge_messages_committed_total",
          "Committed messages",
          { look: "Below what the leader receives: the function is slower than messages arrive." },
        ],
        [
          "hawser_bridge_messages_dead_lettered_total",
          "Messages that became dead letters",
          { look: "Above 0: hawser dead list has the error. Mend the function, then hawser dead retry." },
        ],
        ["hawser_bridge_messages_repeated_total", "Repeated messages", { look: "Only at a change of the leader." }],
        [
          "hawser_bridge_cuts_total",
          "Lost connections of the leader",
          { look: "Above 0: messages may be lost, unless another process has them. Make functions faster." },
        ],
        [
          "hawser_bridge_queue_messages",
          "Queued messages",
          { look: "Grows: the function is slower than messages arrive, or hangs." },
        ],
        [
          "hawser_bridge_queue_bytes",
          "Bytes of queued messages",
          { look: "At --buffer, messages are saved in the database." },
        ],
        [
          "hawser_bridge_saved_messages",
          "Saved messages",
          { look: "Above 0: memory was full. They are handled in order." },
        ],
        [
          "hawser_bridge_saved_bytes",
          "Bytes of saved messages",
          { warnFrom: 1, badFrom: 805306368, look: "Beyond --tune savedBytes (1 GiB) messages are lost." },
        ],
        [
          "hawser_bridge_oldest_message_age_seconds",
          "Age of the oldest message",
          { warnFrom: 30, look: "Above 30 s: look at the waits of the function in pg_stat_activity." },
        ],
        [
          "hawser_bridge_messages_discarded_total",
          "Lost messages",
          { badFrom: 0.0001, look: "Above 0: they are lost. The log has their counts by subject." },
        ],
        [
          "hawser_bridge_standby_buffer_bytes",
          "Buffer for a takeover",
          { look: "Of processes that do not lead: up to --tune takeoverBufferMs of messages." },
        ],
        [
          "hawser_bridge_transactions_total",
          "Transactions",
          { look: "Compare with committed messages: few large ones are fast." },
        ],
        [
          "hawser_bridge_bisections_total",
          "Halved batches",
          { look: "Above 0: single messages of a batch fail. Dead letters say which." },
        ],
        ["hawser_bridge_batch_messages", "Messages of a transaction", { look: "Large while the function is behind." }],
        [
          "hawser_bridge_batch_duration_seconds",
          "Duration of transactions",
          { look: "The time of the function. Look at what has changed with it." },
        ],
      ],
      Streams: [
        [
          "hawser_stream_lag_messages",
          "Messages that are not done",
          { warnFrom: 1000, look: "Falls, or stays low. The limits of the stream delete what is not done in time." },
        ],
        ["hawser_stream_position", "Position", { unit: "none", look: "Moves while messages come." }],
        [
          "hawser_stream_missing_messages",
          "Missing messages",
          { badFrom: 1, look: "Above 0: the stream has deleted them before they were taken." },
        ],
        [
          "hawser_stream_reading",
          "Reading",
          { unit: "bool_yes_no", look: "No: SELECT problem FROM hawser.stream_status." },
        ],
        [
          "hawser_stream_messages_committed_total",
          "Committed messages",
          { look: "Compare with the lag: what is done in a second." },
        ],
        [
          "hawser_stream_messages_dead_lettered_total",
          "Messages that became dead letters",
          { look: "Above 0: hawser dead list has the error. Mend the function, then hawser dead retry." },
        ],
      ],
      Responders: [
        [
          "hawser_responder_requests_total",
          "Requests",
          { look: "failed and timed_out: the log says why. busy: raise --responder-sessions." },
        ],
        [
          "hawser_responder_requests_in_flight",
          "Running requests",
          { look: "At --responder-sessions, further ones wait." },
        ],
        [
          "hawser_responder_requests_queued",
          "Waiting requests",
          { look: "Above 0 for long: more sessions, or a faster function." },
        ],
        [
          "hawser_responder_request_duration_seconds",
          "Duration of requests",
          { look: "Near responder_timeout_ms, requesters get errors." },
        ],
      ],
      "Outbox and dead letters": [
        [
          "hawser_outbox_waiting_messages",
          "Messages that the leader has read",
          { look: "Grows: NATS, or one destination, does not answer." },
        ],
        [
          "hawser_outbox_oldest_message_age_seconds",
          "Age of the oldest of these",
          { warnFrom: 15, look: "Above 15 s: SELECT * FROM hawser.outbox_status." },
        ],
        [
          "hawser_outbox_position_age_seconds",
          "Time since the position moved",
          { warnFrom: 30, look: "Above 30 s while messages wait: /readyz fails. The log names the destination." },
        ],
        [
          "hawser_outbox_messages_relayed_total",
          "Published messages",
          { look: "What is published in a second; compare with the enqueued ones." },
        ],
        [
          "hawser_outbox_messages_refused_total",
          "Refused messages",
          { look: "Above 0: hawser dead list says why, mostly a missing stream or permission." },
        ],
        ["hawser_outbox_messages_replayed_total", "Replayed messages", { look: "Only after hawser.outbox_replay." }],
        [
          "hawser_outbox_messages_dropped_total",
          "Dropped duplicates",
          { look: "Above 0: two messages have one id. The log names it." },
        ],
        [
          "hawser_outbox_enqueued_messages",
          "Enqueued messages for NATS",
          { processes: "max", look: "Grows: nobody relays, or more is enqueued than is published." },
        ],
        [
          "hawser_outbox_enqueued_age_seconds",
          "Age of the oldest enqueued message for NATS",
          { processes: "max", warnFrom: 15, look: "Above 15 s for a minute is an alert." },
        ],
        [
          "hawser_recent_dead_letters",
          "Recent dead letters",
          { processes: "max", warnFrom: 1, look: "Above 0: the page has them by cause. Mend the handler, then retry." },
        ],
        [
          "hawser_notify_queue_ratio",
          "NOTIFY queue",
          {
            processes: "max",
            unit: "percentunit",
            warnFrom: 0.1,
            badFrom: 0.5,
            look: "Rises: one session has an old transaction and listens; the label pid names it.",
          },
        ],
        [
          "hawser_backlog_messages",
          "Messages that wait for peers",
          {
            processes: "max",
            look: "Grows: more workers, or a faster handler. state says whether somebody takes them.",
          },
        ],
        [
          "hawser_backlog_age_seconds",
          "Age of the oldest message that waits for peers",
          {
            processes: "max",
            warnFrom: 300,
            look: "stopped and unserved: start who handles the topic. running above 5 minutes: the handler is slow or hangs: hawser why --topic.",
          },
        ],
        [
          "hawser_backlog_has_more",
          "More messages wait than are counted",
          { processes: "max", unit: "bool_yes_no", well: "no", look: "Yes: hawser pending --exact counts all." },
        ],
        [
          "hawser_schedule_stuck",
          "Schedules that do not run",
          { processes: "max", unit: "bool_yes_no", well: "no", look: "Yes: hawser schedules says why." },
        ],
      ],
    },
  },
  "hawser.metrics.v1.PeerMetrics": {
    uid: "hawser-peers",
    title: "Hawser: peers",
    by: "peer",
    topics: "hawser_peer_messages_handled_total",
    numbers: [
      {
        title: "Oldest message that waits",
        description:
          "For any peer or worker of the database, without paused, held and put-off ones. High: look which topic it is, and whether somebody serves it.",
        expression: oldest("hawser_peer_database_backlog_age_seconds"),
        unit: "s",
        warnFrom: 60,
        badFrom: 300,
        page: "/backlog",
      },
      {
        title: "Handled messages",
        description: "In a second. Look whether it falls while messages wait.",
        expression:
          'sum(rate(hawser_peer_messages_handled_total{FILTER_TOPIC, outcome="done"}[$__rate_interval])) or vector(0)',
        unit: "cps",
        page: "/topics",
      },
      {
        title: "Attempts that fail",
        description: "Without those that a handler put off by RetryAfter. High: the log of the worker has the error.",
        expression:
          'sum(rate(hawser_peer_messages_handled_total{FILTER_TOPIC, outcome!~"done|cancelled|deferred"}[$__rate_interval])) / ' +
          "(sum(rate(hawser_peer_messages_handled_total{FILTER_TOPIC}[$__rate_interval])) > 0) or vector(0)",
        unit: "percentunit",
        warnFrom: 0.01,
        badFrom: 0.05,
        page: "/dead",
      },
      {
        title: "Not ready",
        description: "Peers and workers that cannot take messages. Above 0: /readyz of the process says why.",
        expression: "count(hawser_peer_ready{FILTER} == 0) or vector(0)",
        unit: "short",
        badFrom: 1,
        page: "/peers",
      },
    ],
    rows: {
      Peers: [
        ["hawser_peer_info", "Versions"],
        ["hawser_peer_ready", "Ready", { unit: "bool_yes_no", look: "No: /readyz of the process says why." }],
        [
          "hawser_peer_process_start_timestamp_seconds",
          "Start of the process",
          {
            look: "Starts again and again: its log, and hawser dead list, which has a message that kills it after its last attempt.",
          },
        ],
        [
          "hawser_peer_lease_held",
          "Owner of the name",
          { unit: "bool_yes_no", look: "No: another process has the name, or Postgres is away." },
        ],
        [
          "hawser_peer_lease_remaining_seconds",
          "Time until another process may own the name",
          { look: "Near 0: Postgres answers too slowly to keep the name." },
        ],
        [
          "hawser_peer_postgres_up",
          "Postgres",
          { unit: "bool_yes_no", look: "No: Postgres is away, or refuses the login." },
        ],
        [
          "hawser_peer_postgres_reconnects_total",
          "Reconnections to Postgres",
          { look: "Each one is a restart, a failover or a cut connection." },
        ],
        ["hawser_peer_connections", "Connections", { look: "Falls to 0: the network, or TLS that does not fit." }],
        [
          "hawser_peer_reconnects_total",
          "Reconnections to peers",
          { look: "Rises: listeners restart again and again, or the network cuts connections." },
        ],
        [
          "hawser_peer_certificate_ends_timestamp_seconds",
          "End of the certificate",
          { look: "Renew it in time: the process reads the file again by itself." },
        ],
      ],
      Messages: [
        [
          "hawser_peer_sends_total",
          "Sends",
          { look: "stored: the listener is away. busy, failed, dropped: the sender has an error." },
        ],
        ["hawser_peer_messages_received_total", "Received messages", { look: "Compare with handled messages." }],
        ["hawser_peer_attempts_total", "Attempts", { look: "Above handled messages: attempts fail, or run." }],
        [
          "hawser_peer_messages_handled_total",
          "Handled messages",
          { look: "retried: the log has the error. dead_letter: hawser dead list." },
        ],
        [
          "hawser_peer_handler_duration_seconds",
          "Duration of handlers",
          { look: "What has changed with it? Its 99 % times the rate is how many handlers are needed." },
        ],
        [
          "hawser_peer_running_handlers",
          "Running handlers",
          {
            look: "At concurrency for long: the worker is full; more workers help. Flat without handled messages: handlers hang.",
          },
        ],
        [
          "hawser_peer_queued_messages",
          "Messages in memory",
          { look: "Read ahead. They go to another worker if this one ends." },
        ],
      ],
      Requests: [
        [
          "hawser_peer_requests_total",
          "Sent requests",
          { look: "failed, timed_out, lost, unreachable: the requester has an error." },
        ],
        [
          "hawser_peer_requests_answered_total",
          "Received requests",
          { look: "failed: the log of the process has the error." },
        ],
      ],
      "In the database": [
        ["hawser_peer_backlog_messages", "Backlog", { look: "For this peer alone: it is slow, or away." }],
        [
          "hawser_peer_backlog_age_seconds",
          "Age of the backlog",
          { warnFrom: 300, look: "Above 5 minutes: its handler is slow, or hangs." },
        ],
        [
          "hawser_peer_pending_messages",
          "Pending messages",
          { look: "What it has sent and nobody has handled yet: look at the listener." },
        ],
        [
          "hawser_peer_recent_dead_letters",
          "Recent dead letters",
          { warnFrom: 1, look: "Above 0: the page has them by cause. Mend the handler, then retry." },
        ],
        [
          "hawser_peer_database_backlog_messages",
          "Backlog of all peers",
          {
            processes: "max",
            look: "Grows: more workers, or a faster handler. state says whether somebody takes them.",
          },
        ],
        [
          "hawser_peer_database_backlog_age_seconds",
          "Age of the backlog of all peers",
          {
            processes: "max",
            warnFrom: 300,
            look: "stopped and unserved: start who handles the topic. running above 5 minutes: the handler is slow or hangs: hawser why --topic.",
          },
        ],
        [
          "hawser_peer_database_backlog_has_more",
          "More messages wait for all peers than are counted",
          { processes: "max", unit: "bool_yes_no", well: "no", look: "Yes: hawser pending --exact counts all." },
        ],
        [
          "hawser_peer_database_schedule_stuck",
          "Schedules that do not run",
          { processes: "max", unit: "bool_yes_no", well: "no", look: "Yes: hawser schedules says why." },
        ],
      ],
    },
  },
};
