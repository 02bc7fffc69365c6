#variable_conflict use_column
DECLARE
  v_tids tid[];
  v_count integer;
  v_marked jsonb;
  v_kept bigint[];
  v_done boolean;
BEGIN
  -- As in done.
  IF p_handling AND current_setting(@StoreConstants.handling_setting@, true) IS DISTINCT FROM 'on' THEN
    RAISE EXCEPTION 'what a handler did with messages of the queue is not committed: it has ended its transaction'
      USING ERRCODE = 'integrity_constraint_violation', SCHEMA = 'hawser_data', TABLE = 'queue', CONSTRAINT = 'ended';
  END IF;
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  v_done := hawser.commit_durably();
  v_tids := hawser.lock_queued(p_topics, p_recipients, p_roles, p_ranks, NULL);
  WITH deleted AS (
    DELETE FROM hawser_data.queue AS q WHERE q.ctid = ANY (v_tids)
    RETURNING CASE WHEN @is_marked(q)@ THEN @marks_of(q)@ END AS marks, q.keep_ms, q.rank, q.id, q.role, q.role_id, q.topic, q.key, q.headers, q.enqueued_at,
      q.attempts, q.worker, q.progress
  ), gone AS (
    SELECT d.id, d.role, d.role_id, d.topic, 'done' AS state, d.keep_ms, d.key, d.headers, d.enqueued_at, d.attempts + 1 AS attempts, d.worker,
           (r.of ->> 1)::bigint AS duration_ms, d.progress, (r.of ->> 2)::json::text AS result, NULL AS error_code, NULL AS error_message
      FROM deleted AS d LEFT JOIN jsonb_array_elements(p_results) AS r (of) ON (r.of ->> 0)::bigint = d.rank
  ), kept AS (
    @keep(gone)@
  )
  SELECT count(*), jsonb_agg(d.marks) FILTER (WHERE d.marks IS NOT NULL), array_agg(d.id) FILTER (WHERE d.keep_ms IS NOT NULL)
    INTO v_count, v_marked, v_kept FROM deleted AS d;
  IF v_marked IS NOT NULL THEN
    v_done := hawser.end_marked(v_marked, true);
  END IF;
  IF v_kept IS NOT NULL THEN
    v_done := hawser.tell_ended(v_kept);
  END IF;
  ended := v_count = cardinality(p_ranks);
  IF NOT ended THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('message_gone'),
      MESSAGE = format('%s of %s messages are not in the queue any more', cardinality(p_ranks) - v_count, cardinality(p_ranks)),
      HINT = 'Roll back: other workers have handled them, or they were given up.';
  END IF;
END
