#variable_conflict use_column
BEGIN
  RETURN QUERY
  WITH waiting AS (
    SELECT b.listener AS name, sum(b.messages)::bigint AS messages, min(b.oldest_at) AS oldest_at
      FROM hawser.backlog(@OutboxConstants.counted_messages@) AS b WHERE b.listener IS NOT NULL GROUP BY 1
  ), parked AS (
    SELECT coalesce(m.owner, m.listener_name) AS name, count(*) AS messages
      FROM hawser_data.parked_messages AS k JOIN hawser_data.channels AS m USING (channel_id) GROUP BY 1
  ), senders AS (
    SELECT m.sender_name AS name, count(*) AS channels FROM hawser_data.channels AS m GROUP BY 1
  ), listeners AS (
    SELECT coalesce(m.owner, m.listener_name) AS name, count(*) AS channels FROM hawser_data.channels AS m GROUP BY 1
  ), directory AS (
    SELECT a.listener_name AS name, array_agg(a.topic ORDER BY a.topic COLLATE "C") AS topics
      FROM hawser_data.listeners AS a GROUP BY 1
  ), running AS (
    SELECT unnest(r.running) AS name FROM hawser.running_peers(ARRAY(SELECT p.name FROM hawser_data.peers AS p)) AS r
  )
  SELECT name, name IN (SELECT r.name FROM running AS r) AS running, p.epoch, p.started_at, p.clean, p.version, p.certificate_ends_at,
         coalesce(d.topics, '{}') AS topics, coalesce(w.messages, 0) AS waiting, w.oldest_at AS oldest_waiting_at,
         coalesce(k.messages, 0) AS parked, coalesce(s.channels, 0) AS sends_on, coalesce(l.channels, 0) AS listens_on
    FROM hawser_data.peers AS p
    FULL JOIN directory AS d USING (name)
    FULL JOIN waiting AS w USING (name)
    LEFT JOIN parked AS k USING (name)
    LEFT JOIN senders AS s USING (name)
    LEFT JOIN listeners AS l USING (name);
END
