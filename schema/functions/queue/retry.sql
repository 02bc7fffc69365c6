#variable_conflict use_column
DECLARE
  v_key text;
  v_done boolean;
BEGIN
  v_done := hawser.check_places(ARRAY[p_topic]);
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  v_done := hawser.commit_durably();
  UPDATE hawser_data.queue AS q
     SET worker = NULL, attempts = least(q.attempts + coalesce(p_counts_attempt, true)::integer, 32767), due_at = clock_timestamp() + make_interval(secs => p_delay_ms / 1000.0),
         failures = @with_failure(q)@
   WHERE q.topic = p_topic AND q.recipient = p_recipient AND q.role = p_role AND q.rank = p_rank AND q.worker = p_worker
  RETURNING q.key INTO v_key;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('message_gone'),
      MESSAGE = format('the worker %s does not have the message of rank %s of topic %s any more', p_worker, p_rank, to_json(left(p_topic, 60))),
      HINT = 'Begin a new worker with hawser.open_worker, which replaces this one.';
  END IF;
  ranks := ARRAY[p_rank];
  IF v_key IS NOT NULL THEN
    -- The messages of the key behind it are given back, and wait for its end.
    WITH rest AS (
      UPDATE hawser_data.queue AS q SET worker = NULL, behind = @QueueConstants.behind_key@ || v_key
       WHERE q.topic = p_topic AND q.recipient = p_recipient AND q.key = v_key AND q.role = p_role AND q.rank > p_rank AND q.worker = p_worker
      RETURNING q.rank
    )
    SELECT ranks || coalesce(array_agg(r.rank ORDER BY r.rank), '{}') INTO ranks FROM rest AS r;
  END IF;
END
