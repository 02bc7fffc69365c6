#variable_conflict use_column
BEGIN
  -- Held to the end, and shared, as in clear_stored_messages.
  IF NOT pg_try_advisory_xact_lock_shared(hashtextextended('hawser:lease:' || p_name, 0)) THEN
    RAISE EXCEPTION 'the peer "%" is running', p_name
      USING ERRCODE = 'object_in_use', HINT = 'Stop it first.';
  END IF;
  -- As in enter_directory.
  PERFORM pg_advisory_xact_lock(hashtextextended('hawser:topic_addr', 0));
  DELETE FROM hawser.topic_addr AS t WHERE t.topic = p_topic;
  GET DIAGNOSTICS deleted = ROW_COUNT;
END
