#variable_conflict use_column
BEGIN
  RETURN QUERY
  WITH started AS MATERIALIZED (
    SELECT s.recipient, s.role, q.key, CASE WHEN p_per_key > 0 THEN hawser.limit_key(@user_key(q)@, q.headers, p_key_header) END AS limit_key
      FROM hawser_data.topic_starts AS s
     CROSS JOIN LATERAL (
       SELECT o.key, o.headers, o.channel_id FROM hawser_data.queue AS o
        WHERE o.topic = s.topic AND o.recipient = s.recipient AND o.role = s.role AND o.rank = s.rank OFFSET 0
     ) AS q
     WHERE s.topic = p_topic
  ), counted AS MATERIALIZED (
    SELECT s.role, s.limit_key, count(*) AS running FROM started AS s GROUP BY 1, 2
  ), found AS MATERIALIZED (
    SELECT q.ctid AS tid, q.recipient, q.role, q.rank, q.id, q.key, q.worker, q.due_at,
           CASE WHEN p_per_key > 0 THEN hawser.limit_key(@user_key(q)@, q.headers, p_key_header) END AS limit_key,
           q.key IS NULL OR q.rank = @first_of_key(q)@ AS is_head
      FROM hawser_data.queue AS q WHERE q.ctid = ANY (p_tids)
  ), first AS MATERIALIZED (
    SELECT f.tid, row_number() OVER (PARTITION BY f.role, f.limit_key ORDER BY f.rank >> @QueueConstants.id_bits@, f.due_at, f.rank) AS nth
      FROM found AS f
     WHERE f.is_head AND (f.key IS NULL OR NOT EXISTS (SELECT FROM started AS s WHERE s.recipient = f.recipient AND s.role = f.role AND s.key = f.key))
  ), judged AS (
    SELECT f.*, i.tid IS NOT NULL AS is_first, f.limit_key IS NULL OR i.nth + coalesce(c.running, 0) <= p_per_key AS has_place
      FROM found AS f
      LEFT JOIN first AS i ON i.tid = f.tid
      LEFT JOIN counted AS c ON c.role = f.role AND c.limit_key = f.limit_key
  )
  SELECT j.tid, j.id, j.is_first AND j.has_place, NOT j.is_head AND j.worker IS NULL, j.is_first AND NOT j.has_place AND j.worker IS NULL FROM judged AS j;
END
