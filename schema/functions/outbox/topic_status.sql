#variable_conflict use_column
BEGIN
  RETURN QUERY
  WITH workers AS MATERIALIZED (
    SELECT t.topic, w.name, min(w.group_name COLLATE "C") AS group_name,
           bool_or(w.beat_at > clock_timestamp() - make_interval(secs => w.lease_ms / 1000.0)) AS runs
      FROM hawser_data.workers AS w, unnest(w.topics) AS t (topic) WHERE w.gone_at IS NULL GROUP BY 1, 2
  ), running AS MATERIALIZED (
    SELECT unnest(r.running) AS name FROM hawser.running_peers(ARRAY(SELECT p.name FROM hawser_data.peers AS p)) AS r
  ), listed AS (
    SELECT t.topic, t.listener_name AS listener, t.addr AS address, t.durable, t.subscribed, g.group_name,
           t.listener_name IN (SELECT r.name FROM running AS r) OR coalesce(w.runs, false) AS running
      FROM hawser_data.listeners AS t
      LEFT JOIN hawser_data.peers AS g ON g.name = t.listener_name
      LEFT JOIN workers AS w ON w.topic = t.topic AND w.name = t.listener_name
     UNION ALL
    SELECT w.topic, w.name, '', false, true, w.group_name, w.runs
      FROM workers AS w
     WHERE NOT EXISTS (SELECT FROM hawser_data.listeners AS t WHERE t.topic = w.topic AND t.listener_name = w.name)
  )
  SELECT coalesce(l.topic, s.topic), coalesce(l.listener, ''), coalesce(l.address, ''), coalesce(l.durable, false),
         coalesce(l.subscribed, false), l.group_name, coalesce(l.running, false), s.paused_at, s.paused_by,
         nullif(jsonb_strip_nulls(jsonb_build_object(
           'rate', s.rate, 'burst', s.burst, 'running', s.running, 'runningPerKey', s.running_per_key, 'keyHeader', s.key_header
         )), '{}'), s.keep_ms
    FROM listed AS l
    FULL JOIN hawser_data.topic_settings AS s ON s.topic = l.topic;
END
