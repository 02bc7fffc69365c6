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
    SELECT t.topic, q.role, q.rank, q.worker
      FROM topics AS t
     CROSS JOIN LATERAL (SELECT o.role, o.rank, o.worker FROM hawser_data.queue AS o WHERE o.topic = t.topic ORDER BY o.rank FOR UPDATE SKIP LOCKED) AS q
     WHERE starts_with(t.topic, @QueueConstants.function_prefix@)
       AND NOT EXISTS (
         SELECT FROM hawser_bridge_data.nats_handlers AS h WHERE h.id::text = substr(t.topic, length(@QueueConstants.function_prefix@) + 1)
       )
  )
  SELECT count(*) INTO dropped
    FROM left_over AS l
   CROSS JOIN LATERAL hawser.give_up_subscribed(
     coalesce(l.worker, 0), l.topic, l.role, l.rank, hawser.error_sqlstate('unsubscribed'), 'its function was unsubscribed while it waited to be handled again', NULL
   ) AS g
   WHERE g.dead_letter IS NOT NULL;
END
