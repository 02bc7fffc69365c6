#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := clock_timestamp();
BEGIN
  RETURN QUERY
  WITH RECURSIVE places AS (
    -- As queue_places, by priority, with the first row of each: what an old snapshot keeps of the rows before it is walked over once. A
    -- lower priority has a part of its own, or the messages before it would hide how old its own are.
    SELECT f.*
      FROM (
        SELECT DISTINCT u.topic
          FROM unnest(CASE p_topics
                 WHEN '{}' THEN ARRAY(SELECT q.topic FROM hawser_data.queue AS q ORDER BY q.topic, q.recipient, q.role, q.id LIMIT 1)
                 ELSE p_topics
               END) AS u (topic)
      ) AS t
     CROSS JOIN LATERAL (
       SELECT q.topic, q.recipient, q.role, q.id FROM hawser_data.queue AS q
        WHERE q.topic = t.topic ORDER BY q.topic, q.recipient, q.role, q.id LIMIT 1
     ) AS f
    UNION ALL
    SELECT n.*
      FROM places AS p
     CROSS JOIN LATERAL (
       SELECT q.topic, q.recipient, q.role, q.id FROM hawser_data.queue AS q
        WHERE (q.topic, q.recipient, q.role, q.id) >= (p.topic, p.recipient, p.role, ((p.id >> @QueueConstants.id_bits@) + 1) << @QueueConstants.id_bits@)
        ORDER BY q.topic, q.recipient, q.role, q.id LIMIT 1
     ) AS n
     WHERE p_topics = '{}' OR n.topic = p.topic
  ), part AS MATERIALIZED (
    -- Enqueuers choose priorities: with very many, the first row of each has to do.
    SELECT greatest(CASE WHEN count(*) <= 1000 THEN 100 ELSE 1 END, p_max_rows / greatest(1, count(*))) AS rows FROM places
  ), counted AS MATERIALIZED (
    SELECT p.topic, p.recipient, k.worker, k.is_put_off, k.messages, k.bytes, k.oldest_at,
           sum(k.messages) OVER (PARTITION BY p.topic, p.recipient, p.role, p.id) < (SELECT t.rows FROM part AS t) AS is_complete
      FROM places AS p
     CROSS JOIN LATERAL (
       SELECT o.worker, o.is_put_off, count(*) AS messages, sum(o.bytes) AS bytes, min(o.enqueued_at) AS oldest_at
         FROM (
           SELECT q.worker, coalesce(q.due_at > v_now, false) AS is_put_off, octet_length(q.payload)::bigint AS bytes, q.enqueued_at
             FROM hawser_data.queue AS q
            WHERE q.topic = p.topic AND q.recipient = p.recipient AND q.role = p.role
              AND q.id >= p.id AND q.id < ((p.id >> @QueueConstants.id_bits@) + 1) << @QueueConstants.id_bits@
            ORDER BY q.id
            LIMIT (SELECT t.rows FROM part AS t)
         ) AS o
        GROUP BY o.worker, o.is_put_off
     ) AS k
  )
  SELECT c.topic, coalesce(w.name, substring(ltrim(c.recipient, @QueueConstants.priority_mark@) FROM '^@(.*)$')),
         CASE
           WHEN w.id IS NOT NULL THEN w.group_name
           ELSE substring(ltrim(c.recipient, @QueueConstants.priority_mark@) FROM '^#(.*)$')
         END,
         w.beat_at > v_now - make_interval(secs => w.lease_ms / 1000.0), c.is_put_off,
         sum(c.messages)::bigint, sum(c.bytes)::bigint, min(c.oldest_at), bool_and(c.is_complete)
    FROM counted AS c
    LEFT JOIN hawser_data.workers AS w ON w.id = c.worker AND w.gone_at IS NULL
   GROUP BY 1, 2, 3, 4, 5;
END
