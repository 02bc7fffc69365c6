#variable_conflict use_column
DECLARE
  v_done boolean;
BEGIN
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  -- In one order, so that no two wait for each other.
  WITH locked AS MATERIALIZED (
    SELECT topic, recipient, role, rank
      FROM unnest(p_topics, p_recipients, p_roles, p_ranks) AS m (topic, recipient, role, rank)
      JOIN hawser_data.queue AS q USING (topic, recipient, role, rank)
     WHERE q.worker = p_worker
     ORDER BY rank FOR UPDATE OF q
  ), written AS (
    UPDATE hawser_data.queue AS q SET begun_by = p_worker
      FROM locked AS l
     WHERE q.topic = l.topic AND q.recipient = l.recipient AND q.role = l.role AND q.rank = l.rank AND q.worker = p_worker
    RETURNING q.rank
  )
  SELECT coalesce(array_agg(w.rank ORDER BY w.rank), '{}') INTO ranks FROM written AS w;
END
