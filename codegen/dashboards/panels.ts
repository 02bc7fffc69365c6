/** Panels of the Grafana dashboards: one for each metric of a group, in rows. Units, legends and queries follow from the metrics. */

/** Dashboard of a group of metrics. */
export interface DashboardPlan {
  /** Name of its file, without `.json`, which is its uid, too: links to the dashboard contain it. */
  readonly uid: string;
  readonly title: string;
  /** The label, beside `job` and `instance`, by whose values users choose what they see. Each metric has it. */
  readonly by: string;
  /** Panels by the title of their row: metric, title, and how it is shown. */
  readonly rows: Readonly<Record<string, readonly (readonly [metric: string, title: string, looks?: PanelLooks])[]>>;
}

export interface PanelLooks {
  /**
   * Combination of the time series of several processes. By default, counters and histograms are added up, and gauges
   * have a line for each process. `each`: a line for each process. `max`: the greatest value, because each process shows
   * the number of the whole database.
   */
  readonly processes?: "each" | "max";
  /** Unit in Grafana where it does not follow from the metric: `bool_yes_no` is shown as states over time. */
  readonly unit?: string;
}

/** Dashboards by the message of their metrics. */
export const dashboards: Readonly<Record<string, DashboardPlan>> = {
  "hawser.metrics.v1.ServeMetrics": {
    uid: "hawser-serve",
    title: "Hawser: serve",
    by: "database",
    rows: {
      Connections: [
        ["hawser_build_info", "Versions"],
        ["hawser_postgres_up", "Postgres", { unit: "bool_yes_no" }],
        ["hawser_postgres_reconnects_total", "Reconnections to Postgres"],
        ["hawser_nats_up", "NATS", { unit: "bool_yes_no" }],
        ["hawser_nats_reconnects_total", "Reconnections to NATS"],
      ],
      "Gateway: from SQL to NATS": [
        ["hawser_gateway_sessions", "Sessions"],
        ["hawser_gateway_unreached_timestamp_seconds", "Last call that reached no gateway", { processes: "max" }],
        ["hawser_gateway_certificate_ends_timestamp_seconds", "End of the certificate"],
        ["hawser_gateway_calls_total", "Calls"],
        ["hawser_gateway_call_duration_seconds", "Duration of calls"],
      ],
      "Bridge: from NATS to SQL": [
        ["hawser_bridge_role", "Role of Postgres", { unit: "bool_yes_no" }],
        ["hawser_bridge_leading", "Leader", { unit: "bool_yes_no" }],
        ["hawser_bridge_leader_epoch", "Epoch", { unit: "none" }],
        ["hawser_bridge_messages_received_total", "Received messages", { processes: "each" }],
        ["hawser_bridge_messages_committed_total", "Committed messages"],
        ["hawser_bridge_messages_dead_lettered_total", "Messages that became dead letters"],
        ["hawser_bridge_messages_repeated_total", "Repeated messages"],
        ["hawser_bridge_cuts_total", "Lost connections of the leader"],
        ["hawser_bridge_queue_messages", "Queued messages"],
        ["hawser_bridge_queue_bytes", "Bytes of queued messages"],
        ["hawser_bridge_saved_messages", "Saved messages"],
        ["hawser_bridge_saved_bytes", "Bytes of saved messages"],
        ["hawser_bridge_oldest_message_age_seconds", "Age of the oldest message"],
        ["hawser_bridge_messages_discarded_total", "Lost messages"],
        ["hawser_bridge_standby_buffer_bytes", "Buffer for a takeover"],
        ["hawser_bridge_transactions_total", "Transactions"],
        ["hawser_bridge_bisections_total", "Halved batches"],
        ["hawser_bridge_batch_messages", "Messages of a transaction"],
        ["hawser_bridge_batch_duration_seconds", "Duration of transactions"],
      ],
      Streams: [
        ["hawser_stream_lag_messages", "Messages that are not done"],
        ["hawser_stream_position", "Position", { unit: "none" }],
        ["hawser_stream_missing_messages", "Missing messages"],
        ["hawser_stream_reading", "Reading", { unit: "bool_yes_no" }],
        ["hawser_stream_messages_committed_total", "Committed messages"],
        ["hawser_stream_messages_dead_lettered_total", "Messages that became dead letters"],
      ],
      Responders: [
        ["hawser_responder_requests_total", "Requests"],
        ["hawser_responder_requests_in_flight", "Running requests"],
        ["hawser_responder_requests_queued", "Waiting requests"],
        ["hawser_responder_request_duration_seconds", "Duration of requests"],
      ],
      "Outbox and dead letters": [
        ["hawser_outbox_waiting_messages", "Messages that the leader has read"],
        ["hawser_outbox_oldest_message_age_seconds", "Age of the oldest of these"],
        ["hawser_outbox_position_age_seconds", "Time since the position moved"],
        ["hawser_outbox_messages_relayed_total", "Published messages"],
        ["hawser_outbox_messages_refused_total", "Refused messages"],
        ["hawser_outbox_messages_replayed_total", "Replayed messages"],
        ["hawser_outbox_messages_dropped_total", "Dropped duplicates"],
        ["hawser_outbox_enqueued_messages", "Enqueued messages for NATS", { processes: "max" }],
        ["hawser_outbox_enqueued_age_seconds", "Age of the oldest enqueued message for NATS", { processes: "max" }],
        ["hawser_recent_dead_letters", "Recent dead letters", { processes: "max" }],
        ["hawser_notify_queue_ratio", "NOTIFY queue", { processes: "max", unit: "percentunit" }],
        ["hawser_backlog_messages", "Messages that wait for peers", { processes: "max" }],
        ["hawser_backlog_age_seconds", "Age of the oldest message that waits for peers", { processes: "max" }],
        ["hawser_backlog_has_more", "More messages wait than are counted", { processes: "max", unit: "bool_yes_no" }],
        ["hawser_schedule_stuck", "Schedules that do not run", { processes: "max" }],
      ],
    },
  },
  "hawser.metrics.v1.PeerMetrics": {
    uid: "hawser-peers",
    title: "Hawser: peers",
    by: "peer",
    rows: {
      Peers: [
        ["hawser_peer_info", "Versions"],
        ["hawser_peer_ready", "Ready", { unit: "bool_yes_no" }],
        ["hawser_peer_lease_held", "Owner of the name", { unit: "bool_yes_no" }],
        ["hawser_peer_lease_remaining_seconds", "Time until another process may own the name"],
        ["hawser_peer_postgres_up", "Postgres", { unit: "bool_yes_no" }],
        ["hawser_peer_postgres_reconnects_total", "Reconnections to Postgres"],
        ["hawser_peer_connections", "Connections"],
        ["hawser_peer_reconnects_total", "Reconnections to peers"],
        ["hawser_peer_certificate_ends_timestamp_seconds", "End of the certificate"],
      ],
      Messages: [
        ["hawser_peer_sends_total", "Sends"],
        ["hawser_peer_messages_received_total", "Received messages"],
        ["hawser_peer_attempts_total", "Attempts"],
        ["hawser_peer_messages_handled_total", "Handled messages"],
        ["hawser_peer_handler_duration_seconds", "Duration of handlers"],
        ["hawser_peer_running_handlers", "Running handlers"],
        ["hawser_peer_queued_messages", "Messages in memory"],
        ["hawser_peer_parked_messages", "Parked messages"],
      ],
      Requests: [
        ["hawser_peer_requests_total", "Sent requests"],
        ["hawser_peer_requests_answered_total", "Received requests"],
      ],
      "In the database": [
        ["hawser_peer_backlog_messages", "Backlog"],
        ["hawser_peer_backlog_age_seconds", "Age of the backlog"],
        ["hawser_peer_pending_messages", "Pending messages"],
        ["hawser_peer_recent_dead_letters", "Recent dead letters"],
        ["hawser_peer_database_backlog_messages", "Backlog of all peers", { processes: "max" }],
        ["hawser_peer_database_backlog_age_seconds", "Age of the backlog of all peers", { processes: "max" }],
        [
          "hawser_peer_database_backlog_has_more",
          "More messages wait for all peers than are counted",
          { processes: "max", unit: "bool_yes_no" },
        ],
        ["hawser_peer_database_schedule_stuck", "Schedules that do not run", { processes: "max" }],
      ],
    },
  },
};
