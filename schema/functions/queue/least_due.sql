#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := clock_timestamp();
  v_seen CONSTANT pg_snapshot := pg_current_snapshot();
  v_first timestamptz;
BEGIN
  -- A server that has taken over may give the same ids to other transactions.
  IF p_seen IS NULL OR pg_snapshot_xmax(p_seen) > pg_snapshot_xmax(v_seen) THEN
    -- In a copy of another cluster's database they may have ids of transactions that are still to come here, and every poll
    -- would find them. 2 is older than everything.
    UPDATE hawser_data.queue AS l SET later_xid = '2'
     WHERE l.id = ANY (ARRAY(
       SELECT o.id FROM hawser_data.queue AS o WHERE o.later = p_kind AND o.later_xid > pg_current_xact_id() FOR UPDATE SKIP LOCKED
     ));
    -- Role by role, one behind the other in the index.
    WITH RECURSIVE roles AS (
      SELECT '' AS role
      UNION ALL
      SELECT n.role
        FROM roles AS r
       CROSS JOIN LATERAL (
         SELECT l.role FROM hawser_data.queue AS l WHERE l.later = p_kind AND l.role > r.role ORDER BY l.role LIMIT 1
       ) AS n
    ), firsts AS (
      SELECT r.role, (SELECT min(l.due_at) FROM hawser_data.queue AS l WHERE l.later = p_kind AND l.role = r.role) AS at
        FROM roles AS r
    )
    SELECT jsonb_agg(jsonb_build_array(f.role, @due_ms(f)@)), min(f.at) INTO due_from, v_first FROM firsts AS f WHERE f.at IS NOT NULL;
  ELSE
    -- Of transactions that were open then, those that have ended: what the others have written shows only when they end.
    WITH firsts AS (
      SELECT l.role, min(l.due_at) AS at
        FROM hawser_data.queue AS l
       WHERE l.later = p_kind AND (
         l.later_xid >= pg_snapshot_xmax(p_seen)
         OR l.later_xid = ANY (ARRAY(SELECT x.id FROM pg_snapshot_xip(p_seen) AS x (id) WHERE pg_visible_in_snapshot(x.id, v_seen)))
       )
       GROUP BY l.role
    )
    SELECT jsonb_agg(jsonb_build_array(f.role, @due_ms(f)@)), min(f.at) INTO due_from, v_first FROM firsts AS f;
  END IF;
  due_from := coalesce(due_from, '[]');
  -- greatest would take nothing for something that is due now.
  IF v_first IS NOT NULL THEN
    due_in_ms := ceil(extract(epoch FROM least(greatest(v_first, v_now), v_now + interval '1 day') - v_now) * 1000);
  END IF;
END
