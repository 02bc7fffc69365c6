#variable_conflict use_column
DECLARE
  v_cluster CONSTANT bigint := hawser.present_cluster();
  v_last hawser_data.outbox_turns;
BEGIN
  SELECT t.* INTO v_last FROM hawser_data.outbox_turns AS t ORDER BY t.turn DESC LIMIT 1;
  IF NOT FOUND THEN
    -- A dump that was made while old turns were removed has none. What it has kept is new.
    SELECT 1 AS turn, '' AS owner, 0 AS pid, '3:3:'::pg_snapshot AS done_from, NULL::pg_snapshot AS done_to,
           0 AS done_after, '[]'::jsonb AS series, '{}'::bigint[] AS skipped,
           NULL::bigint AS cluster, now() AS saved_at
      INTO v_last;
  END IF;
  IF p_after <> v_last.owner THEN
    RETURN;
  END IF;
  was_given_back := v_last.owner = '';
  IF v_cluster IS NOT NULL AND v_last.cluster IS DISTINCT FROM v_cluster THEN
    -- A copy of the database: transactions of the other cluster have ids here that mean nothing. What they have left undone
    -- becomes part of this transaction. What was written since, here or in a third cluster, is new anyway. 2 is older than
    -- everything.
    UPDATE hawser_data.outbox AS o
       SET cluster = v_cluster,
           xid = CASE WHEN o.cluster = v_last.cluster AND w.id IS NULL THEN '2'::xid8 ELSE pg_current_xact_id() END
      FROM hawser_data.outbox AS s
      LEFT JOIN hawser.outbox_undone(NULL, 2147483647, NULL) AS w ON w.id = s.id
     WHERE o.id = s.id AND o.segment = s.segment AND s.cluster IS DISTINCT FROM v_cluster;
    v_last.done_from := '3:3:';
    v_last.done_to := NULL;
    v_last.done_after := 0;
    v_last.series := '[]';
    v_last.skipped := '{}';
  END IF;
  turn := v_last.turn + 1;
  done_from := v_last.done_from;
  done_to := v_last.done_to;
  done_after := v_last.done_after;
  series := v_last.series;
  skipped := v_last.skipped;
  can_notify := current_setting('max_prepared_transactions') = '0';
  -- Fails if another relay has had this turn meanwhile.
  INSERT INTO hawser_data.outbox_turns (turn, owner, pid, done_from, done_to, done_after, series, skipped, cluster)
  VALUES (turn, p_owner, pg_backend_pid(), done_from, done_to, done_after, series, skipped, v_cluster);
  PERFORM setval('hawser_data.outbox_state_asleep_seq', 1);
END
