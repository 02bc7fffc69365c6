#variable_conflict use_column
DECLARE
  v_done boolean;
BEGIN
  IF jsonb_path_exists(p_messages, '$[*][4] ? (@ != null)') THEN
    INSERT INTO hawser_data.flow_ends (role, id, is_done)
    SELECT m.of ->> 0, (m.of ->> 4)::bigint, p_done FROM jsonb_array_elements(p_messages) AS m (of) WHERE m.of ->> 4 IS NOT NULL;
    -- A transaction that notifies could not be prepared. That of a handler never is.
    IF p_done OR current_setting('max_prepared_transactions') = '0' THEN
      PERFORM pg_notify(@ScheduleConstants.channel@, '') WHERE pg_notification_queue_usage() < 0.9;
    END IF;
  END IF;
  IF jsonb_path_exists(p_messages, '$[*][2] ? (@ != null)') THEN
    PERFORM hawser.free_unique(p_messages);
  END IF;
  IF jsonb_path_exists(p_messages, '$[*][6] ? (@ != null)') THEN
    v_done := hawser.pass_keys(p_messages);
  END IF;
  ended := true;
END
