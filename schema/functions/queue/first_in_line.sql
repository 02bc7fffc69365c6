#variable_conflict use_column
DECLARE
  v_roles CONSTANT text[] := hawser.callers_roles();
BEGIN
  IF p_topic IS NULL THEN
    PERFORM hawser.refuse_argument('hawser.why', 'id', 'NULL', 'must be the id of a message, unless a topic is named');
  END IF;
  -- Those that are not in line come last.
  SELECT f.id INTO id
    FROM hawser.queue_places(ARRAY[p_topic]) AS p
   CROSS JOIN LATERAL (
     (
       SELECT o.id, o.rank FROM hawser_data.queue AS o
        WHERE p_key IS NULL AND o.topic = p.topic AND o.recipient = p.recipient AND o.role = p.role AND @is_own(o)@ AND o.later IS DISTINCT FROM 'nats' ORDER BY o.rank LIMIT 1
     )
     UNION ALL
     (
       SELECT o.id, o.rank FROM hawser_data.queue AS o
        WHERE o.topic = p.topic AND o.recipient = p.recipient AND o.key = p_key AND o.role = p.role AND @is_own(o)@ AND o.later IS DISTINCT FROM 'nats' ORDER BY o.rank LIMIT 1
     )
   ) AS f
   -- Rows of others are not read, however many there are.
   WHERE v_roles IS NULL OR p.role = ANY (v_roles)
   ORDER BY @is_later(p)@, f.rank LIMIT 1;
END
