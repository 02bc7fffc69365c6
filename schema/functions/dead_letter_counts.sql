#variable_conflict use_column
BEGIN
  RETURN QUERY
  SELECT n.origin, n.function, n.topic, n.error_code, count(*), min(n.created_at),
         max(n.created_at)
    FROM (
      SELECT d.id, d.origin, CASE WHEN d.origin = 'subscription' THEN d.source END AS function, d.topic, d.error_code, d.created_at
        FROM hawser_data.dead_letters AS d ORDER BY d.id DESC LIMIT p_max_rows
    ) AS n
   GROUP BY n.origin, n.function, n.topic, n.error_code
   ORDER BY count(*) DESC, max(n.id) DESC;
END
