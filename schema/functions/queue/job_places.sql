#variable_conflict use_column
DECLARE
  v_roles text[] := hawser.callers_roles();
BEGIN
  -- Rows of others are not read, however many there are.
  RETURN QUERY
  SELECT p.role, p.recipient, b.lowest
    FROM hawser.queue_places(ARRAY[p_topic]) AS p
   CROSS JOIN LATERAL (
     WITH RECURSIVE walked AS (
       (
         SELECT q.rank FROM hawser_data.queue AS q
          WHERE q.topic = p.topic AND q.recipient = p.recipient AND q.role = p.role ORDER BY q.rank LIMIT 1
       )
       UNION ALL
       SELECT n.rank
         FROM walked AS w
        CROSS JOIN LATERAL (
          SELECT q.rank FROM hawser_data.queue AS q
           WHERE q.topic = p.topic AND q.recipient = p.recipient AND q.role = p.role
             AND q.rank >= ((w.rank >> @QueueConstants.id_bits@) + 1) << @QueueConstants.id_bits@
           ORDER BY q.rank LIMIT 1
        ) AS n
     )
     SELECT w.rank >> @QueueConstants.id_bits@ << @QueueConstants.id_bits@ AS lowest FROM walked AS w
   ) AS b
   WHERE v_roles IS NULL OR p.role = ANY (v_roles);
  IF v_roles IS NULL THEN
    WITH RECURSIVE ended AS (
      (
        SELECT r.role FROM hawser_data.results AS r WHERE r.topic = p_topic ORDER BY r.role LIMIT 1
      )
      UNION ALL
      SELECT n.role
        FROM ended AS e
       CROSS JOIN LATERAL (
         SELECT r.role FROM hawser_data.results AS r WHERE r.topic = p_topic AND r.role > e.role ORDER BY r.role LIMIT 1
       ) AS n
    ), dead AS (
      (
        SELECT d.role FROM hawser_data.dead_letters AS d WHERE d.topic = p_topic AND d.job_id IS NOT NULL ORDER BY d.role LIMIT 1
      )
      UNION ALL
      SELECT n.role
        FROM dead AS e
       CROSS JOIN LATERAL (
         SELECT d.role FROM hawser_data.dead_letters AS d WHERE d.topic = p_topic AND d.job_id IS NOT NULL AND d.role > e.role ORDER BY d.role LIMIT 1
       ) AS n
    )
    SELECT array_agg(u.role) INTO v_roles FROM (SELECT e.role FROM ended AS e UNION SELECT d.role FROM dead AS d) AS u;
  END IF;
  RETURN QUERY SELECT r.role, NULL::text, NULL::bigint FROM unnest(v_roles) AS r (role);
END
