#variable_conflict use_column
DECLARE
  v_done boolean;
BEGIN
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  -- In one order, so that no two wait for each other. What is freed is at the end of its key, or another worker could have two parts of it.
  WITH given AS MATERIALIZED (
    SELECT q.topic, q.recipient, q.role, q.id, q.key
      FROM unnest(p_topics, p_recipients, p_roles, p_ids) AS m (topic, recipient, role, id)
      JOIN hawser_data.queue AS q USING (topic, recipient, role, id)
     WHERE q.worker = p_worker
  ), first AS MATERIALIZED (
    SELECT g.topic, g.recipient, g.role, g.key, min(g.id) AS id FROM given AS g WHERE g.key IS NOT NULL GROUP BY 1, 2, 3, 4
  ), freed AS MATERIALIZED (
    SELECT g.topic, g.recipient, g.role, g.id FROM given AS g
    UNION
    SELECT q.topic, q.recipient, q.role, q.id
      FROM first AS f
     CROSS JOIN LATERAL (
       SELECT b.* FROM hawser_data.queue AS b
        WHERE b.topic = f.topic AND b.recipient = f.recipient AND b.key = f.key AND b.role = f.role AND b.id > f.id AND b.worker = p_worker
     ) AS q
  ), locked AS MATERIALIZED (
    SELECT topic, recipient, role, id FROM freed AS f JOIN hawser_data.queue AS q USING (topic, recipient, role, id)
     ORDER BY id FOR UPDATE OF q
  ), written AS (
    UPDATE hawser_data.queue AS q SET worker = NULL
      FROM locked AS l
     WHERE q.topic = l.topic AND q.recipient = l.recipient AND q.role = l.role AND q.id = l.id AND q.worker = p_worker
    RETURNING q.topic, q.id
  )
  SELECT coalesce(array_agg(w.id ORDER BY w.id), '{}'), hawser.wake_topics(array_agg(DISTINCT w.topic)) INTO ids, v_done FROM written AS w;
END
