#variable_conflict use_column
DECLARE
  v_done boolean;
BEGIN
  WITH gone AS (
    SELECT m.id, m.role, m.role_id, m.topic, p_state AS state, m.keep_ms, m.key, m.headers, m.enqueued_at, m.attempts, m.worker, NULL::bigint AS duration_ms,
           m.progress, NULL AS result, p_error_code AS error_code, coalesce(p_error_message, m.error_message) AS error_message
      FROM jsonb_to_recordset(p_messages) AS m (
        id bigint, role text, role_id bigint, topic text, keep_ms integer, key text, headers jsonb, enqueued_at timestamptz, attempts integer, worker bigint,
        progress text, error_message text
      )
  )
  @keep(gone)@;
  -- Who cancels may be about to prepare the transaction, which must not notify then.
  IF p_state <> 'cancelled' OR current_setting('max_prepared_transactions') = '0' THEN
    v_done := hawser.tell_ended(ARRAY(SELECT (m.of ->> 'id')::bigint FROM jsonb_array_elements(p_messages) AS m (of)));
  END IF;
  kept := true;
END
