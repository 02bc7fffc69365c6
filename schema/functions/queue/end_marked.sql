#variable_conflict use_column
DECLARE
  v_ids CONSTANT bigint[] := ARRAY(SELECT (m.of ->> 3)::bigint FROM jsonb_array_elements(p_messages) AS m (of));
  v_awaited CONSTANT bigint[] := ARRAY(SELECT (m.of ->> 4)::bigint FROM jsonb_array_elements(p_messages) AS m (of) WHERE m.of ->> 4 IS NOT NULL);
BEGIN
  IF v_awaited <> '{}' THEN
    INSERT INTO hawser_data.flow_ends (id, is_done) SELECT a.id, p_done FROM unnest(v_awaited) AS a (id);
    -- A transaction that notifies could not be prepared. That of a handler never is.
    IF p_done OR current_setting('max_prepared_transactions') = '0' THEN
      PERFORM pg_notify(@ScheduleConstants.channel@, '') WHERE pg_notification_queue_usage() < 0.9;
    END IF;
  END IF;
  DELETE FROM hawser_data.unique_locks AS l
   WHERE l.id = ANY (ARRAY(SELECT o.id FROM hawser_data.unique_locks AS o WHERE o.id = ANY (v_ids) FOR UPDATE SKIP LOCKED));
  -- With a lock that is left, the key is left, too: who enqueues with it next finds that its message is gone.
  WITH locked AS MATERIALIZED (
    SELECT u.role, u.topic, u.unique_key
      FROM jsonb_array_elements(p_messages) AS m (of)
      JOIN hawser_data.unique_keys AS u
        ON u.role = m.of ->> 0 AND u.topic = m.of ->> 1 AND u.unique_key = m.of ->> 2 AND u.id = (m.of ->> 3)::bigint
     WHERE NOT EXISTS (SELECT FROM hawser_data.unique_locks AS l WHERE l.id = u.id)
       FOR UPDATE OF u SKIP LOCKED
  )
  DELETE FROM hawser_data.unique_keys AS u USING locked AS l WHERE u.role = l.role AND u.topic = l.topic AND u.unique_key = l.unique_key;
  ended := true;
END
