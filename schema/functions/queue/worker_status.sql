#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := clock_timestamp();
BEGIN
  RETURN QUERY
  SELECT w.name, w.group_name, w.topic, w.beat_at, w.beat_at > v_now - @lease_of(w)@,
         coalesce(w.running -> 'full' = 'true', false) OR coalesce(s.said -> 'full' = 'true', false),
         @reported(said_handlers)@, @reported(said_oldest)@, @reported(said_handled)@, @reported(said_failed)@
    FROM (
      SELECT o.*, t.topic
        FROM hawser_data.workers AS o
       CROSS JOIN LATERAL unnest(o.topics) AS t (topic)
       WHERE o.gone_at IS NULL AND (p_name IS NULL OR o.name = p_name) AND (p_topic IS NULL OR t.topic = p_topic)
       ORDER BY o.name COLLATE "C", o.id, t.topic COLLATE "C" LIMIT 1000
    ) AS w
   CROSS JOIN LATERAL (
     -- A worker may report any JSON.
     SELECT a.said, a.said -> 'running' AS said_handlers, a.said -> 'oldest_ms' AS said_oldest, a.totals -> 0 AS said_handled, a.totals -> 1 AS said_failed
       FROM (SELECT w.running -> 'topics' -> w.topic AS said, w.running -> 'totals' -> w.topic AS totals) AS a
   ) AS s;
END
