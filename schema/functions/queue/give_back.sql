#variable_conflict use_column
DECLARE
  v_done boolean;
BEGIN
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  -- In one order, so that no two wait for each other. What is freed is at the end of its key, or another worker could have two parts of it.
  WITH given AS MATERIALIZED (
    SELECT q.topic, q.recipient, q.role, q.rank, q.key
      FROM unnest(p_topics, p_recipients, p_roles, p_ranks) AS m (topic, recipient, role, rank)
      JOIN hawser_data.queue AS q USING (topic, recipient, role, rank)
     WHERE q.worker = p_worker
  ), first AS MATERIALIZED (
    SELECT g.topic, g.recipient, g.role, g.key, min(g.rank) AS rank FROM given AS g WHERE g.key IS NOT NULL GROUP BY 1, 2, 3, 4
  ), freed AS MATERIALIZED (
    SELECT g.topic, g.recipient, g.role, g.rank, true AS is_given FROM given AS g
    UNION ALL
    SELECT q.topic, q.recipient, q.role, q.rank, false
      FROM first AS f
     CROSS JOIN LATERAL (
       SELECT b.* FROM hawser_data.queue AS b
        WHERE b.topic = f.topic AND b.recipient = f.recipient AND b.key = f.key AND b.role = f.role AND b.rank > f.rank AND b.worker = p_worker
     ) AS q
     WHERE q.rank NOT IN (SELECT g.rank FROM given AS g)
  ), locked AS MATERIALIZED (
    SELECT topic, recipient, role, rank, f.is_given FROM freed AS f JOIN hawser_data.queue AS q USING (topic, recipient, role, rank)
     ORDER BY rank FOR UPDATE OF q
  ), written AS (
    UPDATE hawser_data.queue AS q SET worker = NULL, given_back = least(q.given_back + (coalesce(p_begun, false) AND l.is_given)::integer, 32767)
      FROM locked AS l
     WHERE q.topic = l.topic AND q.recipient = l.recipient AND q.role = l.role AND q.rank = l.rank AND q.worker = p_worker
    RETURNING q.topic, q.rank
  )
  SELECT coalesce(array_agg(w.rank ORDER BY w.rank), '{}'), hawser.wake_topics(array_agg(DISTINCT w.topic)) INTO ranks, v_done FROM written AS w;
END
