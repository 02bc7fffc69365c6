#variable_conflict use_column
DECLARE
  v_last hawser_data.outbox_turns;
  v_series record;
BEGIN
  SELECT t.* INTO v_last FROM hawser_data.outbox_turns AS t ORDER BY t.turn DESC LIMIT 1;
  SELECT (array_agg(pg_snapshot_xmax(f.seen) ORDER BY pg_snapshot_xmax(f.seen)))[1] AS xmax, array_agg(x.xid) FILTER (WHERE x.xid IS NOT NULL) AS xip INTO v_series
    FROM (
      SELECT v_last.done_from AS seen UNION ALL SELECT s."from" FROM jsonb_to_recordset(v_last.series) AS s ("from" pg_snapshot)
    ) AS f
    LEFT JOIN LATERAL pg_snapshot_xip(f.seen) AS x (xid) ON true;
  RETURN QUERY
  WITH series AS MATERIALIZED (
    SELECT s.* FROM jsonb_to_recordset(v_last.series) AS s (role text, route text, "from" pg_snapshot, "to" pg_snapshot, after bigint)
  )
  SELECT n.id, n.segment, n.destination, n.enqueued_at, s.role IS NOT NULL
    FROM (
      SELECT o.* FROM hawser_data.outbox AS o
       WHERE o.segment BETWEEN coalesce(p_segment, 0::smallint) AND coalesce(p_segment, @OutboxConstants.segments@ - 1) AND o.xid >= v_series.xmax
      UNION ALL
      SELECT o.* FROM hawser_data.outbox AS o
       WHERE o.segment BETWEEN coalesce(p_segment, 0::smallint) AND coalesce(p_segment, @OutboxConstants.segments@ - 1)
         AND o.xid = ANY (v_series.xip) AND o.xid < v_series.xmax
       LIMIT p_max_read
    ) AS n
    LEFT JOIN LATERAL (
      SELECT r.* FROM series AS r
       WHERE r.role = n.role AND (r.route IS NULL OR r.route = @route(n)@)
       ORDER BY r.route NULLS LAST LIMIT 1
    ) AS s ON true
   WHERE n.id <> ALL (v_last.skipped)
     AND CASE
       WHEN s.role IS NOT NULL THEN
         NOT pg_visible_in_snapshot(n.xid, s."from")
         AND (s."to" IS NULL OR NOT pg_visible_in_snapshot(n.xid, s."to") OR n.id > s.after)
       ELSE
         NOT pg_visible_in_snapshot(n.xid, v_last.done_from)
         AND (v_last.done_to IS NULL OR NOT pg_visible_in_snapshot(n.xid, v_last.done_to) OR n.id > v_last.done_after)
     END
   LIMIT p_limit;
END
