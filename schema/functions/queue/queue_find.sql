#variable_conflict use_column
DECLARE
  v_roles CONSTANT text[] := hawser.callers_roles();
  v_header CONSTANT jsonb := jsonb_build_array(@ProtocolConstants.message_id_header@, p_message_id);
BEGIN
  RETURN QUERY
  WITH found AS MATERIALIZED (
    SELECT q.* FROM hawser_data.queue AS q WHERE q.id = p_number AND q.later IS NULL AND @is_own(q)@
    UNION ALL
    (
      SELECT q.* FROM hawser_data.queue AS q
       WHERE p_message_id IS NOT NULL AND q.id IS DISTINCT FROM p_number AND q.message_id IS DISTINCT FROM p_message_id AND q.later IS NULL AND @is_own(q)@
         -- The first alone is also true of a pair that is turned around, and for the name as an id, of every pair. Quotes within a
         -- text are escaped, so the second is true of the pair only.
         AND q.headers @> jsonb_build_array(v_header) AND strpos(q.headers::text, v_header::text) > 0
       LIMIT p_limit
    )
    UNION ALL
    (
      SELECT q.* FROM hawser_data.queue AS q
       WHERE q.channel_id = (SELECT m.channel_id FROM hawser_peer_data.channels AS m WHERE m.channel_name = substring(p_message_id FROM '^(.*)/[0-9]+/-?[0-9]+$'))
         AND q.message_id = p_message_id AND q.id IS DISTINCT FROM p_number AND @is_own(q)@
       LIMIT p_limit
    )
  )
  SELECT n.id, n.topic, substring(ltrim(n.recipient, @QueueConstants.priority_mark@) FROM '^@(.*)$'), substring(ltrim(n.recipient, @QueueConstants.priority_mark@) FROM '^#(.*)$'),
         n.role, (-(n.rank >> @QueueConstants.id_bits@))::integer, n.to_all, h.message_id, h.traceparent, n.enqueued_at, n.attempts::integer, n.due_at, w.name,
         n.given_back::integer, CASE WHEN n.channel_id IS NOT NULL THEN n.message_id END
    FROM found AS n
   CROSS JOIN LATERAL (
     SELECT max(e.pair ->> 1) FILTER (WHERE e.pair ->> 0 = @ProtocolConstants.message_id_header@) AS message_id,
            max(e.pair ->> 1) FILTER (WHERE e.pair ->> 0 = @TraceConstants.parent_header@) AS traceparent
       FROM jsonb_array_elements(coalesce(n.headers, '[]')) AS e (pair)
   ) AS h
    LEFT JOIN hawser_data.workers AS w ON w.id = n.worker AND w.gone_at IS NULL
   ORDER BY n.rank
   LIMIT p_limit;
END
