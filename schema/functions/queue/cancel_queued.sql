#variable_conflict use_column
DECLARE
  v_tids tid[];
  v_cancelled bigint[];
  v_gone bigint[];
  v_running bigint[];
  v_ranks bigint[];
  v_topics text[];
  v_marked jsonb;
  v_kept jsonb;
BEGIN
  -- Nobody waits for a worker that is just taking or ending a row. With the same worker as before it was not taken: an id of a worker
  -- is never used again.
  v_tids := ARRAY(
    SELECT l.tid
      FROM unnest(p_topics, p_recipients, p_roles, p_ranks) AS m (topic, recipient, role, rank)
     CROSS JOIN LATERAL (
       SELECT o.worker FROM hawser_data.queue AS o
        WHERE o.topic = m.topic AND o.recipient = m.recipient AND o.role = m.role AND o.rank = m.rank AND @is_free(o)@ OFFSET 0
     ) AS f
     CROSS JOIN LATERAL (
       SELECT q.ctid AS tid FROM hawser_data.queue AS q
        WHERE q.topic = m.topic AND q.recipient = m.recipient AND q.role = m.role AND q.rank = m.rank AND q.worker IS NOT DISTINCT FROM f.worker
          FOR UPDATE SKIP LOCKED
     ) AS l
  );
  WITH gone AS (
    DELETE FROM hawser_data.queue AS q WHERE q.ctid = ANY (v_tids) RETURNING q.*
  )
  -- Workers may have looked at those behind them, and left them because of them.
  SELECT array_agg(g.id), array_agg(g.rank), array_agg(DISTINCT g.topic) FILTER (WHERE g.key IS NOT NULL), jsonb_agg(@marks_of(g)@) FILTER (WHERE @is_marked(g)@),
         jsonb_agg(@kept_of(g)@) FILTER (WHERE g.later IS DISTINCT FROM 'nats' AND @keep_ms_of(g)@ IS NOT NULL)
    INTO v_cancelled, v_gone, v_topics, v_marked, v_kept FROM gone AS g;
  PERFORM hawser.end_marked(v_marked, false);
  IF v_kept IS NOT NULL THEN
    PERFORM hawser.keep_ended(v_kept, 'cancelled', NULL, NULL);
  END IF;
  IF v_topics IS NOT NULL THEN
    PERFORM hawser.wake_topics(v_topics);
  END IF;

  -- Those that are left are a worker's. To lock their rows would hold it up until this transaction ends.
  SELECT array_agg(q.id), array_agg(q.rank) INTO v_running, v_ranks
    FROM unnest(p_topics, p_recipients, p_roles, p_ranks) AS m (topic, recipient, role, rank)
   CROSS JOIN LATERAL (
     SELECT o.id, o.rank FROM hawser_data.queue AS o
      WHERE o.topic = m.topic AND o.recipient = m.recipient AND o.role = m.role AND o.rank = m.rank OFFSET 0
   ) AS q;
  INSERT INTO hawser_data.cancellations (topic, recipient, role, rank)
  SELECT m.* FROM unnest(p_topics, p_recipients, p_roles, p_ranks) AS m (topic, recipient, role, rank)
   WHERE m.rank = ANY (v_ranks)
     -- One is enough, however often it is asked for while the handler runs.
     AND NOT EXISTS (
       SELECT FROM hawser_data.cancellations AS c WHERE c.topic = m.topic AND c.recipient = m.recipient AND c.role = m.role AND c.rank = m.rank
     )
  ON CONFLICT DO NOTHING;
  -- A transaction that notifies could not be prepared; there the worker learns of it with its next beat.
  IF current_setting('max_prepared_transactions') = '0' THEN
    PERFORM pg_notify(@QueueConstants.channel@, @QueueConstants.cancel_mark@ || r.rank)
       FROM unnest(v_ranks) AS r (rank) WHERE pg_notification_queue_usage() < 0.9;
  END IF;
  RETURN QUERY
    SELECT c.id, 'cancelled', c.rank FROM unnest(v_cancelled, v_gone) AS c (id, rank)
    UNION ALL
    SELECT r.id, 'cancelling', r.rank FROM unnest(v_running, v_ranks) AS r (id, rank);
END
