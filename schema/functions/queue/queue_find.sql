#variable_conflict use_column
DECLARE
  v_roles CONSTANT text[] := hawser.callers_roles();
  v_header CONSTANT jsonb := jsonb_build_array(@ProtocolConstants.message_id_header@, p_message_id);
BEGIN
  RETURN QUERY
  WITH found AS MATERIALIZED (
    SELECT n.*
      FROM hawser.queue_places('{}') AS p
     CROSS JOIN LATERAL (
       SELECT q.* FROM hawser_data.queue AS q
        WHERE q.topic = p.topic AND q.recipient = p.recipient AND q.role = p.role AND q.id = p_number
        LIMIT 1
     ) AS n
     WHERE p_number IS NOT NULL AND (v_roles IS NULL OR p.role = ANY (v_roles))
    UNION ALL
    SELECT q.* FROM hawser_data.queue AS q WHERE q.first_id = p_number AND (v_roles IS NULL OR q.role = ANY (v_roles))
    UNION ALL
    (
      SELECT q.* FROM hawser_data.queue AS q
       WHERE p_message_id IS NOT NULL AND coalesce(q.first_id, q.id) IS DISTINCT FROM p_number AND (v_roles IS NULL OR q.role = ANY (v_roles))
         -- The first alone is also true of a pair that is turned around, and for the name as an id, of every pair. Quotes within a
         -- text are escaped, so the second is true of the pair only.
         AND q.headers @> jsonb_build_array(v_header) AND strpos(q.headers::text, v_header::text) > 0
       LIMIT p_limit
    )
  )
  SELECT n.id, n.topic, substring(ltrim(n.recipient, @QueueConstants.priority_mark@) FROM '^@(.*)$'), substring(ltrim(n.recipient, @QueueConstants.priority_mark@) FROM '^#(.*)$'),
         n.role, (-(n.id >> @QueueConstants.id_bits@))::integer, n.to_all, h.message_id, h.traceparent, n.enqueued_at, n.attempts::integer, n.due_at, w.name,
         n.first_id
    FROM found AS n
   CROSS JOIN LATERAL (
     SELECT max(e.pair ->> 1) FILTER (WHERE e.pair ->> 0 = @ProtocolConstants.message_id_header@) AS message_id,
            max(e.pair ->> 1) FILTER (WHERE e.pair ->> 0 = @TraceConstants.parent_header@) AS traceparent
       FROM jsonb_array_elements(coalesce(n.headers, '[]')) AS e (pair)
   ) AS h
    LEFT JOIN hawser_data.workers AS w ON w.id = n.worker AND w.gone_at IS NULL
   ORDER BY n.id
   LIMIT p_limit;
END
