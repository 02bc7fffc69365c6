#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := clock_timestamp();
BEGIN
  INSERT INTO hawser_data.results
    (segment, id, role, role_id, topic, state, listener, attempts, enqueued_at, ended_at, duration_ms, progress, result, error_code, error_message, expires_at)
  SELECT (extract(epoch FROM e.expires_at)::bigint / 86400) % @QueueConstants.result_segments@, m.id, m.role, m.role_id, m.topic, p_state, w.name, m.attempts, m.enqueued_at, v_now,
         m.duration_ms, m.progress, m.result::json::text, p_error_code, coalesce(p_error_message, m.error_message), e.expires_at
    FROM jsonb_to_recordset(p_messages) AS m (
      id bigint, role text, role_id bigint, topic text, keep_ms integer, enqueued_at timestamptz, attempts integer, worker bigint, progress text, duration_ms bigint,
      result text, error_message text
    )
   CROSS JOIN LATERAL (SELECT v_now + m.keep_ms * interval '1 millisecond' AS expires_at) AS e
    LEFT JOIN hawser_data.workers AS w ON w.id = m.worker
  -- No handler fails because of what is only told of it.
  ON CONFLICT DO NOTHING;
  -- Who cancels may be about to prepare the transaction, which must not notify then.
  IF p_state <> 'cancelled' OR current_setting('max_prepared_transactions') = '0' THEN
    PERFORM pg_notify(@QueueConstants.results_channel@, m.of ->> 'id')
       FROM jsonb_array_elements(p_messages) AS m (of) WHERE pg_notification_queue_usage() < 0.9;
  END IF;
  kept := true;
END
