#variable_conflict use_column
DECLARE
  v_done boolean;
BEGIN
  IF p_passed_ids <> '{}' THEN
    v_done := hawser.put_behind(p_passed_ids);
  END IF;
  INSERT INTO hawser_data.topic_starts AS s (topic, recipient, role, rank, worker, started_at, limit_key)
  SELECT q.topic, q.recipient, q.role, q.rank, p_worker, p_at, CASE WHEN p_per_key > 0 THEN hawser.limit_key(@user_key(q)@, q.headers, p_key_header) END
    FROM hawser_data.queue AS q WHERE q.ctid = ANY (p_tids)
  ON CONFLICT (topic, recipient, role, rank) DO UPDATE SET worker = excluded.worker, started_at = excluded.started_at, limit_key = excluded.limit_key;
  -- Behind those of their role and key of the limit that run: the end of one is found by who looks next, which has the lock of the topic, too.
  IF p_full_tids <> '{}' THEN
    WITH passed AS MATERIALIZED (
      SELECT q.ctid AS tid, hawser.limit_key(@user_key(q)@, q.headers, p_key_header) AS limit_key
        FROM hawser_data.queue AS q WHERE q.ctid = ANY (p_full_tids) AND q.worker IS NULL AND q.behind IS NULL FOR UPDATE SKIP LOCKED
    )
    UPDATE hawser_data.queue AS q SET behind = @QueueConstants.behind_limit@ || p.limit_key
      FROM passed AS p
     WHERE q.ctid = p.tid
       AND (SELECT count(*) FROM hawser_data.topic_starts AS s WHERE s.topic = p_topic AND s.role = q.role AND s.limit_key = p.limit_key) >= p_per_key;
  END IF;
  wait_ms := CASE
    -- Another worker is taking some of them.
    WHEN p_at IS NULL THEN (random() * @QueueConstants.least_wait_ms@)::integer + 1
    ELSE (SELECT c.wait_ms FROM hawser.count_starts(p_topic, p_at, cardinality(p_tids)) AS c)
  END;
END
