#variable_conflict use_column
BEGIN
  RETURN QUERY
  WITH waiting AS (
    SELECT b.listener AS name, sum(b.messages)::bigint AS messages, bool_and(b.is_complete) AS is_complete, min(b.oldest_at) AS oldest_at
      FROM hawser.backlog(@QueueConstants.counted_messages@) AS b WHERE p_without_waiting IS NOT TRUE AND b.listener IS NOT NULL GROUP BY 1
  ), senders AS (
    SELECT m.sender_name AS name, count(*) AS channels FROM hawser_peer_data.channels AS m GROUP BY 1
  ), listeners AS (
    SELECT m.listener_name AS name, count(*) AS channels FROM hawser_peer_data.channels AS m GROUP BY 1
  ), workers AS MATERIALIZED (
    SELECT w.name, w.topics, w.beat_at > clock_timestamp() - @lease_of(w)@ AS runs
      FROM hawser_data.workers AS w WHERE w.gone_at IS NULL
  ), served AS (
    SELECT t.name, array_agg(t.topic ORDER BY t.topic COLLATE "C") AS topics, bool_or(t.is_worker) AS is_worker
      FROM (
        SELECT a.name, a.topic, bool_or(a.is_worker) AS is_worker
          FROM (
            SELECT l.listener_name AS name, l.topic, false AS is_worker FROM hawser_peer_data.listeners AS l
             UNION ALL
            SELECT w.name, unnest(w.topics), true FROM workers AS w
          ) AS a
         GROUP BY 1, 2
      ) AS t
     GROUP BY 1
  ), running AS (
    SELECT unnest(r.running) AS name FROM hawser.running_peers(ARRAY(SELECT p.name FROM hawser_peer_data.peers AS p)) AS r
     UNION
    SELECT w.name FROM workers AS w WHERE w.runs
  )
  SELECT name, name IN (SELECT r.name FROM running AS r) AS running, p.epoch, p.started_at,
         CASE WHEN p.name IS NULL AND d.is_worker THEN false ELSE p.clean END AS clean, p.version, p.certificate_ends_at,
         coalesce(d.topics, '{}') AS topics, coalesce(w.messages, 0) AS waiting, w.oldest_at AS oldest_waiting_at,
         coalesce(s.channels, 0) AS sends_on, coalesce(l.channels, 0) AS listens_on, coalesce(w.is_complete, true) AS is_complete
    FROM hawser_peer_data.peers AS p
    FULL JOIN served AS d USING (name)
    FULL JOIN waiting AS w USING (name)
    LEFT JOIN senders AS s USING (name)
    LEFT JOIN listeners AS l USING (name);
END
