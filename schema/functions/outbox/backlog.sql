#variable_conflict use_column
-- The function's settings: see drain_messages and channels_with_messages. What it costs does not grow with what waits beyond the
-- counted rows, and sorts nothing large.
DECLARE
  v_sender CONSTANT text := @OutboxConstants.peer_sender@ || ':' || @OutboxConstants.peer_sender@;
  v_is_replica CONSTANT boolean := pg_is_in_recovery();
BEGIN
  RETURN QUERY
  WITH channels AS MATERIALIZED (
    SELECT m.channel_id, m.sender_name, m.source_topic, coalesce(m.owner, m.listener_name) AS owner,
           coalesce(c.epoch, 0) AS epoch, coalesce(c.number, 0) AS number
      FROM hawser_data.channels AS m
      LEFT JOIN LATERAL (
        -- As in cursor_of.
        SELECT n.epoch, n.number FROM hawser_data.cursors AS n WHERE n.channel_id = m.channel_id
         ORDER BY n.channel_id DESC, n.epoch DESC, n.number DESC LIMIT 1
      ) AS c ON true
     WHERE (
       SELECT s.channel_id FROM hawser_data.stored_messages AS s
        WHERE s.channel_id = m.channel_id AND (s.epoch, s.number) > (coalesce(c.epoch, 0), coalesce(c.number, 0))
        ORDER BY s.channel_id, s.epoch, s.number LIMIT 1
     ) IS NOT NULL
  ), part AS MATERIALIZED (
    SELECT greatest(100, p_max_rows / greatest(1, count(*))) AS rows FROM channels
  ), counted AS MATERIALIZED (
    SELECT h.channel_id, k.topic_id, k.messages, k.bytes, k.oldest_at,
           sum(k.rows) OVER (PARTITION BY h.channel_id) < (SELECT p.rows FROM part AS p) AS is_complete
      FROM channels AS h
     CROSS JOIN LATERAL (
       SELECT o.topic_id, sum(o.messages) AS messages, sum(o.bytes) AS bytes, min(o.stored_at) AS oldest_at, count(*) AS rows
         FROM (
           -- Of a batch only what is behind the cursor.
           SELECT s.topic_id, CASE WHEN s.epoch = h.epoch THEN least(s.messages, s.number - h.number) ELSE s.messages END AS messages,
                  octet_length(s.payload)::bigint AS bytes, s.stored_at
             FROM hawser_data.stored_messages AS s
            WHERE s.channel_id = h.channel_id AND (s.epoch, s.number) > (h.epoch, h.number)
            ORDER BY s.channel_id, s.epoch, s.number
            LIMIT (SELECT p.rows FROM part AS p)
         ) AS o
        GROUP BY o.topic_id
     ) AS k
  ), running AS MATERIALIZED (
    -- As in running_peers, of all names.
    SELECT substr(o.what, 6) AS name
      FROM hawser_data.owners AS o
     WHERE starts_with(o.what, 'peer:')
       AND EXISTS (
         SELECT FROM pg_locks AS l
          WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND l.mode = 'ExclusiveLock' AND l.pid = o.pid
            AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
            AND (l.classid::bigint << 32 | l.objid::bigint) = o.life
       )
  ), waiting AS MATERIALIZED (
    SELECT h.sender_name, h.source_topic,
           CASE WHEN NOT starts_with(h.owner, @OutboxConstants.reserved_prefix@) THEN h.owner END AS listener,
           nullif(w.for_group, '') AS for_group, coalesce(t.topic, '') AS topic,
           sum(k.messages)::bigint AS messages, sum(k.bytes)::bigint AS bytes, min(k.oldest_at) AS oldest_at,
           bool_and(k.is_complete) AS is_complete
      FROM counted AS k
      JOIN channels AS h ON h.channel_id = k.channel_id
      LEFT JOIN hawser_data.topics AS t ON t.id = k.topic_id
      LEFT JOIN hawser_data.peer_waiting_topics AS w ON w.channel_id = k.channel_id
     GROUP BY 1, 2, 3, 4, 5
  ), free AS MATERIALIZED (
    -- Messages that no listener owns yet. The listeners that could take them are in the directory, or were in it when messages of the
    -- topic were stored last.
    SELECT f.topic, f.for_group, count(a.listener_name) AS listeners, bool_or(r.name IS NOT NULL) AS runs,
           CASE WHEN count(*) = count(p.group_name) AND count(DISTINCT p.group_name) = 1 THEN min(p.group_name COLLATE "C") END AS group_name
      FROM (SELECT DISTINCT w.topic, w.for_group FROM waiting AS w WHERE w.listener IS NULL) AS f
      LEFT JOIN LATERAL (
        SELECT d.listener_name FROM hawser_data.listeners AS d WHERE d.topic = f.topic
         UNION
        SELECT k.listener_name FROM hawser_data.routes AS k WHERE k.sender_key = v_sender AND k.listener_topic = f.topic
      ) AS a ON true
      LEFT JOIN hawser_data.peers AS p ON p.name = a.listener_name
      LEFT JOIN running AS r ON r.name = a.listener_name
     WHERE f.for_group IS NULL OR p.group_name = f.for_group
     GROUP BY f.topic, f.for_group
  )
  SELECT w.sender_name, w.source_topic, w.listener,
         coalesce(w.for_group, CASE WHEN w.listener IS NULL THEN f.group_name ELSE p.group_name END),
         w.topic, w.messages, w.bytes, w.oldest_at,
         CASE
           WHEN v_is_replica THEN NULL
           WHEN coalesce(r.name IS NOT NULL OR f.runs, false) THEN 'running'
           WHEN w.for_group IS NOT NULL OR f.listeners > 0 OR p.name IS NOT NULL
                OR EXISTS (SELECT FROM hawser_data.listeners AS d WHERE d.listener_name = w.listener) THEN 'stopped'
           ELSE 'unserved'
         END,
         w.is_complete
    FROM waiting AS w
    LEFT JOIN free AS f ON w.listener IS NULL AND f.topic = w.topic AND f.for_group IS NOT DISTINCT FROM w.for_group
    LEFT JOIN hawser_data.peers AS p ON p.name = w.listener
    LEFT JOIN running AS r ON r.name = w.listener;
END
