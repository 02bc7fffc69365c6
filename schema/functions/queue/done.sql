DECLARE
  v_gone record;
  v_done boolean;
BEGIN
  IF starts_with(p_topic, @QueueConstants.function_prefix@) THEN
    v_done := hawser.check_places(ARRAY[p_topic]);
  END IF;
  IF p_handling AND current_setting(@StoreConstants.handling_setting@, true) IS DISTINCT FROM 'on' THEN
    RAISE EXCEPTION 'what a handler did with a message of the queue is not committed: it has ended its transaction'
      USING ERRCODE = 'integrity_constraint_violation', SCHEMA = 'hawser_data', TABLE = 'queue', CONSTRAINT = 'ended';
  END IF;
  -- From here on others wait for the end of this transaction who end the same message.
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  -- As commit_durably does it, whose call would take as long as all of this.
  IF current_setting('synchronous_commit') IN ('off', 'local') THEN
    v_done := set_config('synchronous_commit', 'on', true) IS NULL;
  END IF;
  DELETE FROM hawser_data.queue AS q WHERE q.topic = p_topic AND q.recipient = p_recipient AND q.role = p_role AND q.rank = p_rank
  RETURNING CASE WHEN @is_marked(q)@ THEN jsonb_build_array(@marks_of(q)@) END AS marked, q.keep_ms, q.id, q.role_id, q.key, q.headers, q.enqueued_at, q.attempts, q.worker, q.progress
    INTO v_gone;
  ended := FOUND;
  IF NOT ended THEN
    -- An error, so that a COMMIT that is sent along is not carried out.
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('message_gone'),
      MESSAGE = format('the message of rank %s of topic %s is not in the queue any more', p_rank, to_json(left(p_topic, 60))),
      HINT = 'Roll back: another worker has handled it, or it was given up.';
  END IF;
  IF v_gone.marked IS NOT NULL THEN
    v_done := hawser.end_marked(v_gone.marked, true);
  END IF;
  IF v_gone.keep_ms IS NOT NULL THEN
    WITH gone AS (
      SELECT v_gone.id AS id, p_role AS role, v_gone.role_id AS role_id, p_topic AS topic, 'done' AS state, v_gone.keep_ms AS keep_ms, v_gone.key AS key,
             v_gone.headers AS headers, v_gone.enqueued_at AS enqueued_at, v_gone.attempts + 1 AS attempts, v_gone.worker AS worker, p_duration_ms AS duration_ms,
             v_gone.progress AS progress, p_result::json::text AS result, NULL AS error_code, NULL AS error_message
    )
    @keep(gone)@;
    IF @is_awaited(v_gone)@ THEN
      PERFORM pg_notify(@QueueConstants.results_channel@, v_gone.id::text) WHERE pg_notification_queue_usage() < 0.9;
    END IF;
  END IF;
END
