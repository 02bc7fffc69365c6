#variable_conflict use_column
-- One behind the other in the primary key: rows of a place that many others are behind are not read.
BEGIN
  RETURN QUERY
  WITH RECURSIVE places AS (
    (
      SELECT q.topic, q.recipient, q.role FROM hawser_data.queue AS q ORDER BY q.topic, q.recipient, q.role, q.id LIMIT 1
    )
    UNION ALL
    SELECT n.topic, n.recipient, n.role
      FROM places AS p
     CROSS JOIN LATERAL (
       SELECT q.topic, q.recipient, q.role FROM hawser_data.queue AS q
        WHERE (q.topic, q.recipient, q.role) > (p.topic, p.recipient, p.role)
        ORDER BY q.topic, q.recipient, q.role, q.id LIMIT 1
     ) AS n
  )
  SELECT p.topic, p.recipient, p.role FROM places AS p;
END
