#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := clock_timestamp();
BEGIN
  RETURN QUERY
  WITH RECURSIVE known AS MATERIALIZED (
    SELECT DISTINCT u.topic
      FROM (
        SELECT unnest(p_topics) AS topic
         UNION ALL
        SELECT unnest(w.topics) FROM hawser_data.workers AS w WHERE p_topics = '{}'
         UNION ALL
        SELECT l.topic FROM hawser_peer_data.listeners AS l WHERE p_topics = '{}'
         UNION ALL
        SELECT t.topic FROM hawser_data.topic_settings AS t WHERE p_topics = '{}'
      ) AS u
  ), walked AS (
    -- As queue_places, by priority, with the first row of each: what an old snapshot keeps of the rows before it is walked over once. A
    -- lower priority has a part of its own, or the messages before it would hide how old its own are. Topics that have a worker, a
    -- listener or a setting come by themselves, so that thousands of others neither hide them nor make this slow.
    SELECT f.*, k.topic IS NOT NULL AS is_known, 1 AS nth
      FROM (
        SELECT k.topic FROM known AS k
         UNION ALL
        SELECT NULL WHERE p_topics = '{}'
      ) AS k
     CROSS JOIN LATERAL (
       SELECT q.topic, q.recipient, q.role, q.rank FROM hawser_data.queue AS q
        WHERE q.topic = coalesce(k.topic, (SELECT o.topic FROM hawser_data.queue AS o ORDER BY o.topic, o.recipient, o.role, o.rank LIMIT 1))
        ORDER BY q.topic, q.recipient, q.role, q.rank LIMIT 1
     ) AS f
    UNION ALL
    SELECT n.*, p.is_known, p.nth + 1
      FROM walked AS p
     CROSS JOIN LATERAL (
       SELECT q.topic, q.recipient, q.role, q.rank FROM hawser_data.queue AS q
        WHERE (q.topic, q.recipient, q.role, q.rank) >= (p.topic, p.recipient, p.role, ((p.rank >> @QueueConstants.id_bits@) + 1) << @QueueConstants.id_bits@)
        ORDER BY q.topic, q.recipient, q.role, q.rank LIMIT 1
     ) AS n
     WHERE p.nth < @QueueConstants.walked_places@ AND (NOT p.is_known OR n.topic = p.topic)
  ), places AS MATERIALIZED (
    -- The last one that was walked to may have others behind it.
    SELECT w.topic, w.recipient, w.role, w.rank, max(w.nth) = @QueueConstants.walked_places@ AS is_cut
      FROM walked AS w WHERE NOT starts_with(w.recipient, @QueueConstants.later_mark@) GROUP BY 1, 2, 3, 4
  ), part AS MATERIALIZED (
    -- Enqueuers choose priorities: with very many, the first row of each has to do.
    SELECT greatest(CASE WHEN count(*) <= 1000 THEN 100 ELSE 1 END, p_max_rows / greatest(1, count(*))) AS rows FROM places
  ), first AS MATERIALIZED (
    SELECT p.*, k.*
      FROM places AS p
     CROSS JOIN LATERAL (
       SELECT o.worker, o.is_put_off, count(*) AS messages, sum(o.bytes) AS bytes, min(o.enqueued_at) AS oldest_at, max(o.rank) AS last_rank
         FROM (
           SELECT q.rank, q.worker, coalesce(q.due_at > v_now, false) AS is_put_off, octet_length(q.payload)::bigint AS bytes, q.enqueued_at
             FROM hawser_data.queue AS q
            WHERE q.topic = p.topic AND q.recipient = p.recipient AND q.role = p.role
              AND q.rank >= p.rank AND q.rank < ((p.rank >> @QueueConstants.id_bits@) + 1) << @QueueConstants.id_bits@
            ORDER BY q.rank
            LIMIT (SELECT t.rows FROM part AS t)
         ) AS o
        GROUP BY o.worker, o.is_put_off
     ) AS k
  ), seen AS MATERIALIZED (
    SELECT f.topic, f.recipient, f.role, f.rank, f.is_cut, sum(f.messages) < (SELECT t.rows FROM part AS t) AS is_complete,
           max(f.last_rank) AS last_rank, sum(sum(f.messages)) OVER () AS all_messages
      FROM first AS f GROUP BY 1, 2, 3, 4, 5
  ), rest AS MATERIALIZED (
    -- Places with few messages leave their part to those with many.
    SELECT floor(greatest(0, p_max_rows - max(s.all_messages)) / greatest(1, count(*) FILTER (WHERE NOT s.is_complete)))::bigint AS rows FROM seen AS s
  ), second AS MATERIALIZED (
    SELECT s.*, k.*
      FROM seen AS s
     CROSS JOIN LATERAL (
       SELECT o.worker, o.is_put_off, count(*) AS messages, sum(o.bytes) AS bytes, min(o.enqueued_at) AS oldest_at
         FROM (
           SELECT q.worker, coalesce(q.due_at > v_now, false) AS is_put_off, octet_length(q.payload)::bigint AS bytes, q.enqueued_at
             FROM hawser_data.queue AS q
            WHERE q.topic = s.topic AND q.recipient = s.recipient AND q.role = s.role
              AND q.rank > s.last_rank AND q.rank < ((s.rank >> @QueueConstants.id_bits@) + 1) << @QueueConstants.id_bits@
            ORDER BY q.rank
            LIMIT (SELECT t.rows FROM rest AS t)
         ) AS o
        GROUP BY o.worker, o.is_put_off
     ) AS k
     WHERE NOT s.is_complete
  ), counted AS MATERIALIZED (
    SELECT c.*, NOT s.is_cut AND (
             coalesce(bool_or(s.is_complete) OVER of_place, false)
             OR coalesce(sum(c.more) OVER of_place, 0) < (SELECT t.rows FROM rest AS t)
           ) AS is_complete
      FROM (
        SELECT f.topic, f.recipient, f.role, f.rank, f.worker, f.is_put_off, f.messages, f.bytes, f.oldest_at, 0 AS more FROM first AS f
         UNION ALL
        SELECT n.topic, n.recipient, n.role, n.rank, n.worker, n.is_put_off, n.messages, n.bytes, n.oldest_at, n.messages FROM second AS n
      ) AS c
      JOIN seen AS s USING (topic, recipient, role, rank)
    WINDOW of_place AS (PARTITION BY c.topic, c.recipient, c.role, c.rank)
  )
  SELECT c.topic, coalesce(w.name, substring(ltrim(c.recipient, @QueueConstants.priority_mark@) FROM '^@(.*)$')),
         CASE
           WHEN w.id IS NOT NULL THEN w.group_name
           ELSE substring(ltrim(c.recipient, @QueueConstants.priority_mark@) FROM '^#(.*)$')
         END,
         w.beat_at > v_now - @lease_of(w)@, c.is_put_off,
         sum(c.messages)::bigint, sum(c.bytes)::bigint, min(c.oldest_at), bool_and(c.is_complete)
    FROM counted AS c
    LEFT JOIN hawser_data.workers AS w ON w.id = c.worker AND w.gone_at IS NULL
   GROUP BY 1, 2, 3, 4, 5;
END
