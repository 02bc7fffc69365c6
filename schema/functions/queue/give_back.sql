#variable_conflict use_column
DECLARE
  v_tids tid[];
  v_given tid[];
  v_done boolean;
BEGIN
  v_done := hawser.check_places(p_topics);
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  -- In one order, so that no two wait for each other. What is freed is at the end of its key, or another worker could have two parts of it.
  WITH given AS MATERIALIZED (
    SELECT q.topic, q.recipient, q.role, q.rank, q.key
      FROM unnest(p_topics, p_recipients, p_roles, p_ranks) AS m (topic, recipient, role, rank)
     CROSS JOIN LATERAL (
       SELECT o.* FROM hawser_data.queue AS o
        WHERE o.topic = m.topic AND o.recipient = m.recipient AND o.role = m.role AND o.rank = m.rank AND o.worker = p_worker OFFSET 0
     ) AS q
  ), first AS MATERIALIZED (
    SELECT g.topic, g.recipient, g.role, g.key, min(g.rank) AS rank FROM given AS g WHERE g.key IS NOT NULL GROUP BY 1, 2, 3, 4
  ), freed AS MATERIALIZED (
    SELECT g.topic, g.recipient, g.role, g.rank, true AS is_given FROM given AS g
    UNION ALL
    SELECT q.topic, q.recipient, q.role, q.rank, false
      FROM first AS f
     CROSS JOIN LATERAL (
       SELECT b.* FROM hawser_data.queue AS b
        WHERE b.topic = f.topic AND b.recipient = f.recipient AND b.key = f.key AND b.role = f.role AND b.rank > f.rank AND b.worker = p_worker OFFSET 0
     ) AS q
     WHERE q.rank NOT IN (SELECT g.rank FROM given AS g)
  ), locked AS MATERIALIZED (
    SELECT q.tid, f.is_given
      FROM (SELECT f.* FROM freed AS f ORDER BY f.rank) AS f
     CROSS JOIN LATERAL (
       SELECT o.ctid AS tid FROM hawser_data.queue AS o
        WHERE o.topic = f.topic AND o.recipient = f.recipient AND o.role = f.role AND o.rank = f.rank AND o.worker = p_worker FOR UPDATE
     ) AS q
  )
  SELECT array_agg(l.tid), array_agg(l.tid) FILTER (WHERE l.is_given) INTO v_tids, v_given FROM locked AS l;
  WITH written AS (
    UPDATE hawser_data.queue AS q
       SET worker = NULL, given_back = least(q.given_back + (coalesce(p_begun, false) AND q.ctid = ANY (v_given))::integer, 32767)
     WHERE q.ctid = ANY (v_tids)
    RETURNING q.topic, q.rank
  )
  SELECT coalesce(array_agg(w.rank ORDER BY w.rank), '{}'), hawser.wake_topics(array_agg(DISTINCT w.topic)) INTO ranks, v_done FROM written AS w;
END
