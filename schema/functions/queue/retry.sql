#variable_conflict use_column
DECLARE
  v_key text;
  v_due_at timestamptz;
  v_done boolean;
BEGIN
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  v_done := hawser.commit_durably();
  UPDATE hawser_data.queue AS q
     SET worker = NULL, attempts = least(q.attempts + coalesce(p_counts_attempt, true)::integer, 32767), due_at = clock_timestamp() + make_interval(secs => p_delay_ms / 1000.0),
         failures = @with_failure(q)@
   WHERE q.topic = p_topic AND q.recipient = p_recipient AND q.role = p_role AND q.id = p_id AND q.worker = p_worker
  RETURNING q.key, q.due_at INTO v_key, v_due_at;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('message_gone'),
      MESSAGE = format('the worker %s does not have the message %s of topic %s any more', p_worker, p_id, to_json(left(p_topic, 60))),
      HINT = 'Begin a new worker with hawser.open_worker, which replaces this one.';
  END IF;
  ids := ARRAY[p_id];
  IF v_key IS NOT NULL THEN
    -- The messages of the key behind it are given back: a worker takes them together with it. None of them may be due before it, because
    -- `take` looks at messages in the order in which they are due, and would find only those that have to wait.
    WITH rest AS (
      UPDATE hawser_data.queue AS q SET worker = NULL, due_at = v_due_at
       WHERE q.topic = p_topic AND q.recipient = p_recipient AND q.key = v_key AND q.role = p_role AND q.id > p_id
         AND (q.worker = p_worker OR q.due_at < v_due_at)
      RETURNING q.id
    )
    SELECT ids || coalesce(array_agg(r.id ORDER BY r.id), '{}') INTO ids FROM rest AS r;
  END IF;
END
