#variable_conflict use_column
DECLARE
  v_roles CONSTANT text[] := hawser.callers_roles();
  v_secret CONSTANT text := (SELECT s.secret FROM hawser_data.outbox_state AS s);
  -- Ids that the relay makes are hashes: other ids need none of the rows to be hashed.
  v_is_hash CONSTANT boolean := p_message_id ~ '^[0-9a-f]{32}$';
  -- Peers know a message by this header.
  v_header CONSTANT jsonb := jsonb_build_array(@ProtocolConstants.message_id_header@, p_message_id);
BEGIN
  RETURN QUERY
  WITH found AS MATERIALIZED (
    SELECT o.* FROM hawser_data.outbox AS o
     WHERE o.id = p_number AND (v_roles IS NULL OR o.role = ANY (v_roles))
    UNION ALL
    (
      SELECT o.* FROM hawser_data.outbox AS o
       WHERE p_message_id IS NOT NULL AND o.id IS DISTINCT FROM p_number AND (v_roles IS NULL OR o.role = ANY (v_roles))
         AND CASE
           WHEN o.segment >= @OutboxConstants.segments@ THEN
             -- The first alone is also true of a pair that is turned around, and for the name as an id, of every pair. Quotes within a
             -- text are escaped, so the second is true of the pair only.
             o.headers @> jsonb_build_array(v_header) AND strpos(o.headers::text, v_header::text) > 0
           WHEN o.message_id IS NOT NULL THEN o.message_id = p_message_id
           ELSE v_is_hash
             AND @message_id(o)@ = p_message_id
         END
       LIMIT p_limit
    )
  )
  SELECT n.id, CASE WHEN n.segment < @OutboxConstants.segments@ THEN 'nats' ELSE 'peer' END, n.role, n.destination, n.listener, n.to_all, n.to_stream,
         CASE
           WHEN n.segment >= @OutboxConstants.segments@ THEN h.message_id
           ELSE coalesce(n.message_id, @message_id(n)@)
         END,
         n.enqueued_at, n.first_enqueued_at, n.copy_of, h.traceparent,
         w.waits, w.waits AND s.role IS NOT NULL, t.saved_at
    FROM found AS n
    LEFT JOIN LATERAL (
      -- Headers for NATS are an object, those for peers a list of pairs.
      SELECT max(p.value) FILTER (WHERE p.name = @ProtocolConstants.message_id_header@) AS message_id,
             max(p.value) FILTER (WHERE p.name = @TraceConstants.parent_header@) AS traceparent
        FROM (
          SELECT e.pair ->> 0 AS name, e.pair ->> 1 AS value
            FROM jsonb_array_elements(CASE jsonb_typeof(n.headers) WHEN 'array' THEN n.headers END) AS e (pair)
           UNION ALL
          SELECT e.key, coalesce(e.value ->> 0, e.value #>> '{}')
            FROM jsonb_each(CASE jsonb_typeof(n.headers) WHEN 'object' THEN n.headers END) AS e
        ) AS p
    ) AS h ON true
   CROSS JOIN LATERAL (
     SELECT u.* FROM hawser_data.outbox_turns AS u WHERE u.sink = n.segment / @OutboxConstants.segments@ ORDER BY u.turn DESC LIMIT 1
   ) AS t
    LEFT JOIN LATERAL (
      SELECT r.*
        FROM jsonb_to_recordset(t.series) AS r (role text, route text, "from" pg_snapshot, "to" pg_snapshot, after bigint)
       WHERE r.role = n.role AND (r.route IS NULL OR r.route = @route(n)@)
       ORDER BY r.route NULLS LAST LIMIT 1
    ) AS s ON true
   -- As in outbox_undone, which reads all that waits.
   CROSS JOIN LATERAL (
     SELECT n.id <> ALL (t.skipped) AND CASE
       WHEN s.role IS NOT NULL THEN
         NOT pg_visible_in_snapshot(n.xid, s."from")
         AND (s."to" IS NULL OR NOT pg_visible_in_snapshot(n.xid, s."to") OR n.id > s.after)
       ELSE
         NOT pg_visible_in_snapshot(n.xid, t.done_from)
         AND (t.done_to IS NULL OR NOT pg_visible_in_snapshot(n.xid, t.done_to) OR n.id > t.done_after)
     END AS waits
   ) AS w
   ORDER BY n.id, n.segment
   LIMIT p_limit;
END
