#variable_conflict use_column
BEGIN
  RETURN QUERY
  WITH workers AS MATERIALIZED (
    SELECT t.topic, w.name, min(w.group_name COLLATE "C") AS group_name,
           bool_or(w.beat_at > clock_timestamp() - @lease_of(w)@) AS runs
      FROM hawser_data.workers AS w, unnest(w.topics) AS t (topic)
     WHERE w.gone_at IS NULL AND NOT starts_with(t.topic, @QueueConstants.function_prefix@) GROUP BY 1, 2
  ), running AS MATERIALIZED (
    SELECT unnest(r.running) AS name FROM hawser.running_peers(ARRAY(SELECT p.name FROM hawser_peer_data.peers AS p)) AS r
  ), listed AS (
    SELECT t.topic, t.listener_name AS listener, t.addr AS address, t.durable, t.subscribed, g.group_name,
           t.listener_name IN (SELECT r.name FROM running AS r) OR coalesce(w.runs, false) AS running
      FROM hawser_peer_data.listeners AS t
      LEFT JOIN hawser_peer_data.peers AS g ON g.name = t.listener_name
      LEFT JOIN workers AS w ON w.topic = t.topic AND w.name = t.listener_name
     UNION ALL
    SELECT w.topic, w.name, '', false, true, w.group_name, w.runs
      FROM workers AS w
     WHERE NOT EXISTS (SELECT FROM hawser_peer_data.listeners AS t WHERE t.topic = w.topic AND t.listener_name = w.name)
  ), served AS (
    SELECT n.topic, count(*) AS listeners, bool_or(n.running) AS running,
           jsonb_agg(jsonb_build_object(
             'name', n.listener, 'address', n.address, 'durable', n.durable, 'subscribed', n.subscribed, 'group', n.group_name, 'running', n.running
           ) ORDER BY n.nth) FILTER (WHERE n.nth <= @QueueConstants.named_listeners@) AS named
      FROM (
        SELECT l.*, row_number() OVER (PARTITION BY l.topic ORDER BY l.running DESC, l.listener COLLATE "C", l.address COLLATE "C") AS nth
          FROM listed AS l
      ) AS n
     GROUP BY n.topic
  ), later AS (
    SELECT DISTINCT o.topic
      FROM (
        -- As many as the backlog walks over: one role may have thousands of topics that nobody serves.
        SELECT l.topic FROM hawser_data.queue AS l WHERE l.later = 'peer' LIMIT @QueueConstants.walked_places@
      ) AS o
  )
  SELECT topic, coalesce(l.running, false), coalesce(l.listeners, 0), coalesce(l.named, '[]'), s.paused_at, s.paused_by,
         nullif(jsonb_strip_nulls(jsonb_build_object(
           'rate', s.rate, 'burst', s.burst, 'running', s.running, 'runningPerKey', s.running_per_key, 'keyHeader', s.key_header
         )), '{}'), s.keep_ms
    FROM served AS l
    FULL JOIN hawser_data.topic_settings AS s USING (topic)
    FULL JOIN later AS r USING (topic);
END
