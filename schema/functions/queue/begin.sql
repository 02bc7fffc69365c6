#variable_conflict use_column
DECLARE
  v_tids tid[];
  v_done boolean;
BEGIN
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  v_tids := hawser.lock_queued(p_topics, p_recipients, p_roles, p_ranks, ARRAY[p_worker]);
  WITH written AS (
    UPDATE hawser_data.queue AS q SET begun_by = p_worker WHERE q.ctid = ANY (v_tids) RETURNING q.rank
  )
  SELECT coalesce(array_agg(w.rank ORDER BY w.rank), '{}') INTO ranks FROM written AS w;
END
