#variable_conflict use_column
DECLARE
  v_roles CONSTANT text[] := hawser.callers_roles();
  v_secret CONSTANT text := (SELECT s.secret FROM hawser_data.outbox_state AS s);
  -- Ids that the relay makes are hashes: other ids need none of the rows to be hashed.
  v_is_hash CONSTANT boolean := p_message_id ~ '^[0-9a-f]{32}$';
BEGIN
  RETURN QUERY
  WITH found AS MATERIALIZED (
    SELECT o.* FROM hawser_data.outbox AS o
     WHERE o.id = p_number AND @is_own(o)@
    UNION ALL
    (
      SELECT o.* FROM hawser_data.outbox AS o
       WHERE p_message_id IS NOT NULL AND o.id IS DISTINCT FROM p_number AND @is_own(o)@
         AND CASE WHEN o.message_id IS NOT NULL THEN o.message_id = p_message_id ELSE v_is_hash AND @message_id(o)@ = p_message_id END
       LIMIT p_limit
    )
  )
  SELECT n.id, n.role, n.destination, n.to_stream, coalesce(n.message_id, @message_id(n)@), n.enqueued_at, n.first_enqueued_at, n.copy_of,
         h.traceparent, w.waits, w.waits AND s.role IS NOT NULL, t.saved_at
    FROM found AS n
   CROSS JOIN LATERAL (
     SELECT max(coalesce(e.value ->> 0, e.value #>> '{}')) AS traceparent
       FROM jsonb_each(coalesce(n.headers, '{}')) AS e WHERE e.key = @TraceConstants.parent_header@
   ) AS h
   CROSS JOIN LATERAL (
     SELECT u.* FROM hawser_data.outbox_turns AS u ORDER BY u.turn DESC LIMIT 1
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
   ORDER BY n.id
   LIMIT p_limit;
END
