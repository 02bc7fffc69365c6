#variable_conflict use_column
DECLARE
  v_tids tid[];
  v_done boolean;
BEGIN
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  -- With the id of before no statement finds it any more that is still under way, and what a lost answer of take has named is free.
  UPDATE hawser_data.workers AS w SET id = p_as, beat_at = clock_timestamp(), is_idle = false WHERE w.id = p_worker AND w.gone_at IS NULL;
  IF NOT FOUND THEN
    -- The answer of this call may have been lost.
    UPDATE hawser_data.workers AS w SET beat_at = clock_timestamp() WHERE w.id = p_as AND w.gone_at IS NULL;
    IF NOT FOUND THEN
      @raise_lease_lost(p_worker)@;
    END IF;
  END IF;
  v_done := hawser.check_places((SELECT w.topics FROM hawser_data.workers AS w WHERE w.id = p_as));
  -- What a transaction is just ending is waited for.
  v_tids := hawser.lock_queued(p_topics, p_recipients, p_roles, p_ranks, ARRAY[p_worker, p_as]);
  WITH kept AS (
    UPDATE hawser_data.queue AS q SET worker = p_as, begun_by = CASE WHEN q.begun_by = p_worker THEN p_as ELSE q.begun_by END
     WHERE q.ctid = ANY (v_tids)
    RETURNING q.topic, q.recipient, q.role, q.rank
  ), counted AS (
    UPDATE hawser_data.topic_starts AS s SET worker = p_as
      FROM kept AS k
     WHERE s.topic = k.topic AND s.recipient = k.recipient AND s.role = k.role AND s.rank = k.rank AND s.worker = p_worker
  )
  SELECT coalesce(array_agg(k.rank ORDER BY k.rank), '{}') INTO ranks FROM kept AS k;
  -- Of what is free now, others may not know.
  v_done := hawser.wake_topics(ARRAY(SELECT t.topic FROM hawser_data.workers AS w, unnest(w.topics) AS t (topic) WHERE w.id = p_as));
END
