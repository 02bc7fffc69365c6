#variable_conflict use_column
-- One after the other in the index: the table may have millions of rows.
BEGIN
  IF p_topics = '{}' THEN
    RETURN QUERY
    WITH RECURSIVE places AS (
      (SELECT q.topic, q.recipient, q.role FROM hawser_data.queue AS q ORDER BY 1, 2, 3 LIMIT 1)
      UNION ALL
      SELECT n.*
        FROM places AS p
       CROSS JOIN LATERAL (
         SELECT q.topic, q.recipient, q.role FROM hawser_data.queue AS q
          WHERE (q.topic, q.recipient, q.role) > (p.topic, p.recipient, p.role) ORDER BY 1, 2, 3 LIMIT 1
       ) AS n
    )
    SELECT p.topic, p.recipient, p.role FROM places AS p;
    RETURN;
  END IF;
  RETURN QUERY
  WITH RECURSIVE places AS (
    SELECT f.*
      FROM (SELECT DISTINCT u.topic FROM unnest(p_topics) AS u (topic)) AS t
     CROSS JOIN LATERAL (
       SELECT q.topic, q.recipient, q.role FROM hawser_data.queue AS q WHERE q.topic = t.topic ORDER BY 1, 2, 3 LIMIT 1
     ) AS f
    UNION ALL
    SELECT n.*
      FROM places AS p
     CROSS JOIN LATERAL (
       SELECT q.topic, q.recipient, q.role FROM hawser_data.queue AS q
        WHERE q.topic = p.topic AND (q.recipient, q.role) > (p.recipient, p.role) ORDER BY 1, 2, 3 LIMIT 1
     ) AS n
  )
  SELECT p.topic, p.recipient, p.role FROM places AS p;
END
