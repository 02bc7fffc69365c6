#variable_conflict use_column
DECLARE
  v_tids tid[];
  v_count integer;
  v_marked jsonb;
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
  WITH gone AS (
    DELETE FROM hawser_data.queue AS q WHERE q.ctid = ANY (v_tids)
    RETURNING CASE WHEN @is_marked(q)@ THEN @marks_of(q)@ END AS key
  )
  SELECT count(*), jsonb_agg(g.key) FILTER (WHERE g.key IS NOT NULL) INTO v_count, v_marked FROM gone AS g;
  IF v_marked IS NOT NULL THEN
    v_done := hawser.end_marked(v_marked, true);
  END IF;
  ended := v_count = cardinality(p_ranks);
  IF NOT ended THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('message_gone'),
      MESSAGE = format('%s of %s messages are not in the queue any more', cardinality(p_ranks) - v_count, cardinality(p_ranks)),
      HINT = 'Roll back: other workers have handled them, or they were given up.';
  END IF;
END
