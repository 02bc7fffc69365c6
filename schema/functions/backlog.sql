#variable_conflict use_column
-- The function's settings: see drain_messages and channels_with_messages. What it costs does not grow with what waits beyond the
-- counted rows, and sorts nothing large.
DECLARE
  v_is_replica CONSTANT boolean := pg_is_in_recovery();
  v_paused CONSTANT text[] := ARRAY(SELECT s.topic FROM hawser_data.topic_settings AS s WHERE @is_paused(s)@);
  -- Whose limits are reached: as many run as may, the rate allows no start of the whole burst, or a key may have all that it may.
  v_limited CONSTANT text[] := ARRAY(
    SELECT s.topic FROM hawser_data.topic_settings AS s
     WHERE s.running_per_key IS NOT NULL
        OR s.running <= (SELECT count(*) FROM hawser_data.topic_starts AS t WHERE t.topic = s.topic)
        OR s.interval_us IS NOT NULL AND s.full_at_us > extract(epoch FROM clock_timestamp()) * 1000000
  );
BEGIN
  RETURN QUERY
  WITH channels AS MATERIALIZED (
    SELECT m.channel_id, m.sender_name, m.source_topic, m.listener_name AS owner,
           coalesce(c.epoch, 0) AS epoch, coalesce(c.number, 0) AS number
      FROM hawser_peer_data.channels AS m
      LEFT JOIN LATERAL (
        -- As in cursor_of.
        SELECT n.epoch, n.number FROM hawser_peer_data.cursors AS n WHERE n.channel_id = m.channel_id
         ORDER BY n.channel_id DESC, n.epoch DESC, n.number DESC LIMIT 1
      ) AS c ON true
     WHERE (
       SELECT s.channel_id FROM hawser_peer_data.stored_messages AS s
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
             FROM hawser_peer_data.stored_messages AS s
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
    SELECT h.sender_name, h.source_topic, h.owner AS listener, coalesce(t.topic, '') AS topic, sum(k.messages)::bigint AS messages,
           sum(k.bytes)::bigint AS bytes, min(k.oldest_at) AS oldest_at, bool_and(k.is_complete) AS is_complete
      FROM counted AS k
      JOIN channels AS h ON h.channel_id = k.channel_id
      LEFT JOIN hawser_peer_data.topics AS t ON t.id = k.topic_id
     WHERE p_topic IS NULL OR t.topic = p_topic
     GROUP BY 1, 2, 3, 4
  ), queued AS MATERIALIZED (
    SELECT q.* FROM hawser.queue_backlog(p_max_rows, CASE WHEN p_topic IS NULL THEN '{}' ELSE ARRAY[p_topic] END) AS q
  ), takers AS MATERIALIZED (
    -- Who may take what no worker has: listeners of the directory, and workers, also those that have ended by themselves.
    SELECT d.topic, d.listener_name AS name, p.group_name, r.name IS NOT NULL AS runs, NULL::timestamptz AS beat_at
      FROM hawser_peer_data.listeners AS d
      LEFT JOIN hawser_peer_data.peers AS p ON p.name = d.listener_name
      LEFT JOIN running AS r ON r.name = d.listener_name
     UNION ALL
    SELECT t.topic, w.name, w.group_name,
           w.gone_at IS NULL AND w.beat_at > clock_timestamp() - @lease_of(w)@, w.beat_at
      FROM hawser_data.workers AS w, unnest(w.topics) AS t (topic)
  ), blocked AS MATERIALIZED (
    SELECT e.after_id AS id
      FROM (SELECT f.* FROM hawser_data.flow_edges AS f WHERE f.ended LIMIT p_max_rows) AS e WHERE @is_blocking(e)@
  ), served AS MATERIALIZED (
    -- Who took messages of a topic last, also if it has ended long since.
    SELECT DISTINCT ON (n.topic) n.topic, n.name, n.served_until
      FROM (
        SELECT s.topic, s.name, s.served_until FROM hawser_data.served_topics AS s
         UNION ALL
        SELECT a.topic, a.name, a.beat_at FROM takers AS a WHERE a.beat_at IS NOT NULL
      ) AS n
     ORDER BY n.topic, n.served_until DESC
  ), free AS MATERIALIZED (
    SELECT f.topic, f.listener, f.for_group, count(a.name) AS takers, bool_or(a.runs) AS runs,
           CASE WHEN count(*) = count(a.group_name) AND count(DISTINCT a.group_name) = 1 THEN min(a.group_name COLLATE "C") END AS group_name
      FROM (SELECT DISTINCT q.topic, q.listener, q.group_name AS for_group FROM queued AS q WHERE q.worker_runs IS NULL) AS f
      LEFT JOIN takers AS a
        ON a.topic = f.topic AND (f.listener IS NULL OR a.name = f.listener) AND (f.for_group IS NULL OR a.group_name = f.for_group)
     GROUP BY 1, 2, 3
  )
  SELECT w.sender_name, w.source_topic, w.listener, p.group_name, w.topic, w.messages, w.bytes, w.oldest_at,
         CASE
           WHEN w.topic = ANY (v_paused) THEN 'paused'
           WHEN v_is_replica THEN NULL
           WHEN r.name IS NOT NULL THEN 'running'
           WHEN p.name IS NOT NULL OR EXISTS (SELECT FROM hawser_peer_data.listeners AS d WHERE d.listener_name = w.listener) THEN 'stopped'
           ELSE 'unserved'
         END,
         w.is_complete, NULL, NULL
    FROM waiting AS w
    LEFT JOIN hawser_peer_data.peers AS p ON p.name = w.listener
    LEFT JOIN running AS r ON r.name = w.listener
   UNION ALL
  SELECT NULL, NULL, q.listener, coalesce(q.group_name, f.group_name, CASE WHEN q.worker_runs IS NULL THEN p.group_name END), q.topic,
         q.messages, NULL, q.oldest_at,
         CASE
           WHEN q.topic = ANY (v_paused) THEN 'paused'
           WHEN q.is_put_off THEN 'retrying'
           WHEN v_is_replica THEN NULL
           WHEN q.worker_runs OR f.runs OR q.worker_runs IS NULL AND r.name IS NOT NULL THEN
             CASE WHEN q.worker_runs IS NULL AND q.topic = ANY (v_limited) THEN 'limited' ELSE 'running' END
           WHEN q.worker_runs IS NOT NULL OR q.group_name IS NOT NULL OR f.takers > 0 OR p.name IS NOT NULL OR v.name IS NOT NULL THEN 'stopped'
           ELSE 'unserved'
         END,
         q.is_complete, v.name, v.served_until
    FROM queued AS q
    LEFT JOIN free AS f
      ON q.worker_runs IS NULL AND f.topic = q.topic AND f.listener IS NOT DISTINCT FROM q.listener AND f.for_group IS NOT DISTINCT FROM q.group_name
    LEFT JOIN hawser_peer_data.peers AS p ON p.name = q.listener
    LEFT JOIN running AS r ON r.name = q.listener
    LEFT JOIN served AS v
      ON q.worker_runs IS NULL AND f.runs IS NOT TRUE AND r.name IS NULL AND v.topic = q.topic AND (q.listener IS NULL OR v.name = q.listener)
   UNION ALL
  SELECT NULL, NULL, NULL, NULL, h.topic, count(*), NULL, min(h.enqueued_at), h.state, max(h.nth) < p_max_rows, NULL, NULL
    FROM (
      SELECT l.topic, l.enqueued_at, CASE WHEN b.id IS NULL THEN 'held' ELSE 'blocked' END AS state,
             count(*) OVER () AS nth
        FROM (SELECT o.* FROM hawser_data.queue AS o WHERE o.later = 'held' AND (p_topic IS NULL OR o.topic = p_topic) LIMIT p_max_rows) AS l
        LEFT JOIN (SELECT DISTINCT x.id FROM blocked AS x) AS b ON b.id = l.id
    ) AS h
   GROUP BY h.topic, h.state;
END
