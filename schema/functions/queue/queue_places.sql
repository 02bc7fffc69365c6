#variable_conflict use_column
-- One behind the other in the primary key: rows of a place that many others are behind are not read.
BEGIN
  IF p_topics = '{}' THEN
    RETURN QUERY
    WITH RECURSIVE places AS (
      (
        SELECT q.topic, q.recipient, q.role FROM hawser_data.queue AS q ORDER BY q.topic, q.recipient, q.role, q.rank LIMIT 1
      )
      UNION ALL
      SELECT n.topic, n.recipient, n.role
        FROM places AS p
       CROSS JOIN LATERAL (
         SELECT q.topic, q.recipient, q.role FROM hawser_data.queue AS q
          WHERE (q.topic, q.recipient, q.role) > (p.topic, p.recipient, p.role)
          ORDER BY q.topic, q.recipient, q.role, q.rank LIMIT 1
       ) AS n
    )
    SELECT p.topic, p.recipient, p.role FROM places AS p;
    RETURN;
  END IF;
  RETURN QUERY
  WITH RECURSIVE places AS (
    SELECT f.topic, f.recipient, f.role
      FROM (SELECT DISTINCT u.topic FROM unnest(p_topics) AS u (topic)) AS t
     CROSS JOIN LATERAL (
       SELECT q.topic, q.recipient, q.role FROM hawser_data.queue AS q
        WHERE q.topic = t.topic ORDER BY q.recipient, q.role, q.rank LIMIT 1
     ) AS f
    UNION ALL
    SELECT n.topic, n.recipient, n.role
      FROM places AS p
     CROSS JOIN LATERAL (
       SELECT q.topic, q.recipient, q.role FROM hawser_data.queue AS q
        WHERE q.topic = p.topic AND (q.recipient, q.role) > (p.recipient, p.role) ORDER BY q.recipient, q.role, q.rank LIMIT 1
     ) AS n
  )
  SELECT p.topic, p.recipient, p.role FROM places AS p;
END
