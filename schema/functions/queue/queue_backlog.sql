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
       (
         SELECT q.topic, q.recipient, q.role, q.rank FROM hawser_data.queue AS q
          WHERE (p.is_known OR p.topic NOT IN (SELECT k.topic FROM known AS k))
            AND (q.topic, q.recipient, q.role, q.rank) >= (p.topic, p.recipient, p.role, ((p.rank >> @QueueConstants.id_bits@) + 1) << @QueueConstants.id_bits@)
          ORDER BY q.topic, q.recipient, q.role, q.rank LIMIT 1
       )
       UNION ALL
       (
         SELECT q.topic, q.recipient, q.role, q.rank FROM hawser_data.queue AS q
          WHERE NOT p.is_known AND p.topic IN (SELECT k.topic FROM known AS k) AND q.topic > p.topic
          ORDER BY q.topic, q.recipient, q.role, q.rank LIMIT 1
       )
     ) AS n
     WHERE p.nth < @QueueConstants.walked_places@ AND (NOT p.is_known OR n.topic = p.topic)
  ), places AS MATERIALIZED (
    -- The last one that was walked to may have others behind it.
    SELECT w.topic, w.recipient, w.role, w.rank, max(w.nth) = @QueueConstants.walked_places@ AS is_cut
      FROM walked AS w
     WHERE NOT starts_with(w.recipient, @QueueConstants.later_mark@)
       -- Every hawser serve takes what waits for subscribed functions, and none of them is a listener.
       AND NOT starts_with(w.topic, @QueueConstants.function_prefix@)
     GROUP BY 1, 2, 3, 4
  ), part AS MATERIALIZED (
    -- Enqueuers choose priorities: with very many, the first row of each has to do.
    SELECT greatest(CASE WHEN count(*) <= 1000 THEN 100 ELSE 1 END, p_max_rows / greatest(1, count(*))) AS rows FROM places
  ), first AS MATERIALIZED (
    -- The primary key alone says how many there are.
    SELECT p.*, k.messages, k.last_rank, k.messages < (SELECT t.rows FROM part AS t) AS is_complete
      FROM places AS p
     CROSS JOIN LATERAL (
       SELECT count(*) AS messages, max(o.rank) AS last_rank
         FROM (
           SELECT q.rank FROM hawser_data.queue AS q
            WHERE q.topic = p.topic AND q.recipient = p.recipient AND q.role = p.role
              AND q.rank >= p.rank AND q.rank < ((p.rank >> @QueueConstants.id_bits@) + 1) << @QueueConstants.id_bits@
            ORDER BY q.rank
            LIMIT (SELECT t.rows FROM part AS t)
         ) AS o
     ) AS k
  ), rest AS MATERIALIZED (
    -- Places with few messages leave their part to those with many.
    SELECT floor(greatest(0, p_max_rows - sum(f.messages)) / greatest(1, count(*) FILTER (WHERE NOT f.is_complete)))::bigint AS rows FROM first AS f
  ), counted AS MATERIALIZED (
    SELECT f.topic, f.recipient, f.role, f.rank, f.messages + n.messages AS messages,
           NOT f.is_cut AND (f.is_complete OR n.messages < (SELECT t.rows FROM rest AS t)) AS is_complete
      FROM first AS f
     CROSS JOIN LATERAL (
       SELECT count(*) AS messages
         FROM (
           SELECT FROM hawser_data.queue AS q
            WHERE NOT f.is_complete AND q.topic = f.topic AND q.recipient = f.recipient AND q.role = f.role
              AND q.rank > f.last_rank AND q.rank < ((f.rank >> @QueueConstants.id_bits@) + 1) << @QueueConstants.id_bits@
            ORDER BY q.rank
            LIMIT (SELECT t.rows FROM rest AS t)
         ) AS o
     ) AS n
  ), ready AS (
    -- Workers take the first ones that are ready, so that theirs are at the front: of each place rows are read until there is a run without
    -- any that a worker has. What others hold behind such a run, as one has just given back what it had, counts as free for that moment.
    SELECT c.topic, c.recipient, c.role, c.rank, c.messages AS most, c.is_complete, least(@QueueConstants.front_rows@, c.messages) AS wanted, k.*
      FROM counted AS c
     CROSS JOIN LATERAL (
       SELECT count(*) AS seen, max(o.rank) AS last_rank, max(o.nth) FILTER (WHERE o.worker IS NOT NULL) AS last_taken,
              array_agg(o.worker) FILTER (WHERE o.worker IS NOT NULL) AS workers, array_agg(o.enqueued_at) FILTER (WHERE o.worker IS NOT NULL) AS enqueued_at
         FROM (
           SELECT q.rank, q.worker, q.enqueued_at, row_number() OVER (ORDER BY q.rank) AS nth FROM hawser_data.queue AS q
            WHERE q.topic = c.topic AND q.recipient = c.recipient AND q.role = c.role AND q.due_at IS NULL AND q.behind IS NULL
              AND q.rank >= c.rank AND q.rank < ((c.rank >> @QueueConstants.id_bits@) + 1) << @QueueConstants.id_bits@
            ORDER BY q.rank
            LIMIT least(@QueueConstants.front_rows@, c.messages)
         ) AS o
     ) AS k
    UNION ALL
    SELECT r.topic, r.recipient, r.role, r.rank, r.most - r.seen, r.is_complete, least(2 * r.wanted, r.most - r.seen), k.*
      FROM ready AS r
     CROSS JOIN LATERAL (
       SELECT count(*) AS seen, max(o.rank) AS last_rank, max(o.nth) FILTER (WHERE o.worker IS NOT NULL) AS last_taken,
              array_agg(o.worker) FILTER (WHERE o.worker IS NOT NULL) AS workers, array_agg(o.enqueued_at) FILTER (WHERE o.worker IS NOT NULL) AS enqueued_at
         FROM (
           SELECT q.rank, q.worker, q.enqueued_at, row_number() OVER (ORDER BY q.rank) AS nth FROM hawser_data.queue AS q
            WHERE q.topic = r.topic AND q.recipient = r.recipient AND q.role = r.role AND q.due_at IS NULL AND q.behind IS NULL
              AND q.rank > r.last_rank AND q.rank < ((r.rank >> @QueueConstants.id_bits@) + 1) << @QueueConstants.id_bits@
            ORDER BY q.rank
            LIMIT least(2 * r.wanted, r.most - r.seen)
         ) AS o
     ) AS k
     WHERE r.last_taken > r.wanted / 2 AND r.seen = r.wanted AND r.seen < r.most
  ), apart AS MATERIALIZED (
    -- What a worker has, and what is put off, by the number of its priority's part of the ranks.
    SELECT r.topic, r.recipient, r.role, r.rank >> @QueueConstants.id_bits@ AS nth, u.worker, false AS is_put_off, count(*) AS messages,
           min(u.enqueued_at) AS oldest_at, bool_and(r.is_complete) AS is_complete
      FROM ready AS r CROSS JOIN LATERAL unnest(r.workers, r.enqueued_at) AS u (worker, enqueued_at)
     GROUP BY 1, 2, 3, 4, 5
     UNION ALL
    SELECT s.topic, s.recipient, s.role, k.*, s.is_complete
      FROM (
        SELECT c.topic, c.recipient, c.role, sum(c.messages) AS messages, bool_and(c.is_complete) AS is_complete FROM counted AS c GROUP BY 1, 2, 3
      ) AS s
     CROSS JOIN LATERAL (
       SELECT o.nth, o.worker, o.is_put_off, count(*) AS messages, min(o.enqueued_at) AS oldest_at
         FROM (
           SELECT q.rank >> @QueueConstants.id_bits@ AS nth, q.worker, q.due_at > v_now AS is_put_off, q.enqueued_at FROM hawser_data.queue AS q
            WHERE q.topic = s.topic AND q.recipient = s.recipient AND q.role = s.role AND q.due_at IS NOT NULL AND q.behind IS NULL
            ORDER BY q.due_at, q.rank
            LIMIT s.messages
         ) AS o
        WHERE o.worker IS NOT NULL OR o.is_put_off
        GROUP BY 1, 2, 3
     ) AS k
  ), free AS MATERIALIZED (
    SELECT n.topic, n.recipient, n.role, max(n.rank) AS rank, sum(n.messages) AS messages, bool_and(n.is_complete) AS is_complete
      FROM (
        SELECT c.topic, c.recipient, c.role, c.rank >> @QueueConstants.id_bits@ AS nth, c.rank, c.messages, c.is_complete FROM counted AS c
         UNION ALL
        SELECT a.topic, a.recipient, a.role, a.nth, NULL, -a.messages, NULL FROM apart AS a
      ) AS n
     GROUP BY n.topic, n.recipient, n.role, n.nth
    HAVING sum(n.messages) > 0
  ), parts AS (
    SELECT a.topic, a.recipient, a.worker, a.is_put_off, a.messages, a.oldest_at, a.is_complete FROM apart AS a
     UNION ALL
    SELECT f.topic, f.recipient, NULL, false, f.messages, coalesce(o.enqueued_at, v_now), f.is_complete
      FROM free AS f
      LEFT JOIN LATERAL (
        SELECT q.enqueued_at FROM hawser_data.queue AS q
         WHERE q.topic = f.topic AND q.recipient = f.recipient AND q.role = f.role
           AND q.rank >= f.rank AND q.rank < ((f.rank >> @QueueConstants.id_bits@) + 1) << @QueueConstants.id_bits@
           AND q.worker IS NULL AND (q.due_at > v_now) IS NOT TRUE
         ORDER BY q.rank LIMIT 1
      ) AS o ON true
  )
  SELECT c.topic, coalesce(w.name, substring(ltrim(c.recipient, @QueueConstants.priority_mark@) FROM '^@(.*)$')),
         CASE
           WHEN w.id IS NOT NULL THEN w.group_name
           ELSE substring(ltrim(c.recipient, @QueueConstants.priority_mark@) FROM '^#(.*)$')
         END,
         w.beat_at > v_now - @lease_of(w)@, c.is_put_off,
         sum(c.messages)::bigint, min(c.oldest_at), bool_and(c.is_complete)
    FROM parts AS c
    LEFT JOIN hawser_data.workers AS w ON w.id = c.worker AND w.gone_at IS NULL
   GROUP BY 1, 2, 3, 4, 5;
END
