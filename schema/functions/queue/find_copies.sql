#variable_conflict use_column
BEGIN
  WITH served AS MATERIALIZED (
    SELECT DISTINCT q.topic FROM hawser_data.queue AS q WHERE q.ctid = ANY (p_tids) AND @is_for_all(q)@
  ), listed AS MATERIALIZED (
    SELECT a.topic, a.listener_name, a.durable, p.group_name
      FROM served AS s
      JOIN hawser_peer_data.listeners AS a ON a.topic = s.topic
      LEFT JOIN hawser_peer_data.peers AS p ON p.name = a.listener_name
  ), running AS MATERIALIZED (
    SELECT unnest(r.running) AS name
      FROM hawser.running_peers(ARRAY(SELECT DISTINCT l.listener_name FROM listed AS l WHERE l.group_name IS NULL AND NOT l.durable)) AS r
  )
  SELECT array_agg(c.topic), array_agg(c.recipient) INTO topics, recipients
    FROM (
      SELECT l.topic, CASE WHEN l.group_name IS NULL THEN '@' || l.listener_name ELSE '#' || l.group_name END AS recipient
        FROM listed AS l WHERE l.group_name IS NOT NULL OR l.durable OR l.listener_name IN (SELECT r.name FROM running AS r)
      UNION
      SELECT s.topic, coalesce('#' || w.group_name, @own_recipient(w)@)
        FROM served AS s JOIN hawser_data.workers AS w ON w.gone_at IS NULL AND s.topic = ANY (w.topics)
    ) AS c;
  tids := ARRAY(
    SELECT n.tid
      FROM (
        SELECT q.ctid AS tid, c.count, row_number() OVER w AS nth, sum(c.count) OVER w AS copies, sum(c.count * @memory_bytes(q)@) OVER w AS bytes
          FROM hawser_data.queue AS q
          LEFT JOIN (SELECT u.topic, count(*) AS count FROM unnest(topics) AS u (topic) GROUP BY 1) AS c ON @is_for_all(q)@ AND c.topic = q.topic
         WHERE q.ctid = ANY (p_tids)
        WINDOW w AS (PARTITION BY c.count IS NULL ORDER BY q.rank)
      ) AS n
     WHERE n.count IS NULL OR n.nth = 1 OR (n.copies <= @QueueConstants.taken_copies@ AND n.bytes <= p_max_bytes)
  );
END
