#variable_conflict use_column
-- One after the other in the index: the table may have millions of rows.
BEGIN
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
END
