#variable_conflict use_column
DECLARE
  v_tids tid[];
  v_topics text[];
  v_marked jsonb;
  v_kept jsonb;
  v_done boolean;
BEGIN
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  -- What another worker has is left: its handler may run. A row that is locked is just being handled, or freed: it is looked at again,
  -- unless it is gone then.
  WITH chosen AS MATERIALIZED (
    -- Some of each role: one whose rows are locked for long hides nothing of others.
    SELECT c.*, q.rank IS NOT NULL AS is_there, q.worker
      FROM hawser_data.cancellations AS c
      LEFT JOIN LATERAL (
        SELECT o.rank, o.worker FROM hawser_data.queue AS o
         WHERE o.topic = c.topic AND o.recipient = c.recipient AND o.role = c.role AND o.rank = c.rank OFFSET 0
      ) AS q ON true
     WHERE (p_ranks = '{}' OR c.rank = ANY (p_ranks))
       AND (q.rank IS NULL OR q.worker = p_worker OR @is_free(q)@)
     ORDER BY row_number() OVER (PARTITION BY c.role ORDER BY random()) LIMIT 1000
  ), asked AS MATERIALIZED (
    SELECT h.* FROM chosen AS h JOIN hawser_data.cancellations AS c USING (topic, recipient, role, rank, xid) FOR UPDATE OF c SKIP LOCKED
  ), locked AS MATERIALIZED (
    SELECT a.topic, a.recipient, a.role, a.rank, q.tid
      FROM (SELECT DISTINCT a.topic, a.recipient, a.role, a.rank, a.worker FROM asked AS a WHERE a.is_there) AS a
     CROSS JOIN LATERAL (
       -- The same worker as before: it was not taken. An id of a worker is never used again.
       SELECT o.ctid AS tid FROM hawser_data.queue AS o
        WHERE o.topic = a.topic AND o.recipient = a.recipient AND o.role = a.role AND o.rank = a.rank AND o.worker IS NOT DISTINCT FROM a.worker
          FOR UPDATE SKIP LOCKED
     ) AS q
  ), ended AS (
    DELETE FROM hawser_data.cancellations AS c USING asked AS a
     WHERE c.topic = a.topic AND c.recipient = a.recipient AND c.role = a.role AND c.rank = a.rank AND c.xid = a.xid
       AND (NOT a.is_there OR (a.topic, a.recipient, a.role, a.rank) IN (SELECT l.topic, l.recipient, l.role, l.rank FROM locked AS l))
  )
  SELECT array_agg(l.tid) INTO v_tids FROM locked AS l;
  WITH gone AS (
    DELETE FROM hawser_data.queue AS q WHERE q.ctid = ANY (v_tids) RETURNING q.*
  )
  -- Workers may have looked at those behind them, and left them because of them.
  SELECT coalesce(array_agg(g.rank ORDER BY g.rank), '{}'), array_agg(DISTINCT g.topic) FILTER (WHERE g.key IS NOT NULL),
         jsonb_agg(@marks_of(g)@) FILTER (WHERE @is_marked(g)@), jsonb_agg(@kept_of(g)@) FILTER (WHERE @keep_ms_of(g)@ IS NOT NULL)
    INTO ranks, v_topics, v_marked, v_kept FROM gone AS g;
  v_done := hawser.end_marked(v_marked, false);
  IF v_kept IS NOT NULL THEN
    v_done := hawser.keep_ended(v_kept, 'cancelled', NULL, NULL);
  END IF;
  IF v_topics IS NOT NULL THEN
    v_done := hawser.wake_topics(v_topics);
  END IF;
END
