#variable_conflict use_column
BEGIN
  -- From topic to topic in the index, however many messages each has.
  WITH RECURSIVE topics AS (
    (
      SELECT q.topic FROM hawser_data.queue AS q ORDER BY q.topic LIMIT 1
    )
    UNION ALL
    SELECT n.topic
      FROM topics AS t
     CROSS JOIN LATERAL (SELECT q.topic FROM hawser_data.queue AS q WHERE q.topic > t.topic ORDER BY q.topic LIMIT 1) AS n
  ), left_over AS MATERIALIZED (
    SELECT q.tid
      FROM topics AS t
     CROSS JOIN LATERAL (SELECT o.ctid AS tid FROM hawser_data.queue AS o WHERE o.topic = t.topic FOR UPDATE SKIP LOCKED) AS q
     WHERE starts_with(t.topic, @QueueConstants.function_prefix@)
       AND NOT EXISTS (
         SELECT FROM hawser_bridge_data.nats_handlers AS h WHERE h.id::text = substr(t.topic, length(@QueueConstants.function_prefix@) + 1)
       )
  )
  DELETE FROM hawser_data.queue AS q USING left_over AS l WHERE q.ctid = l.tid;
  GET DIAGNOSTICS dropped = ROW_COUNT;
END
