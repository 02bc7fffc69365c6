#variable_conflict use_column
DECLARE
  v_cluster CONSTANT bigint := hawser.present_cluster();
  v_last hawser.peer_outbox_turns;
BEGIN
  SELECT t.* INTO v_last FROM hawser.peer_outbox_turns AS t ORDER BY t.turn DESC LIMIT 1;
  IF NOT FOUND THEN
    -- A dump that was made while old turns were removed has none. What it has kept is new.
    SELECT 1 AS turn, '' AS owner, '3:3:'::pg_snapshot AS done_from, NULL::pg_snapshot AS done_to, 0 AS done_after,
           NULL::bigint AS cluster, NULL::timestamptz AS saved_at, 1 AS epoch
      INTO v_last;
  END IF;
  turn := v_last.turn + 1;
  IF v_cluster IS NOT NULL AND v_last.cluster IS DISTINCT FROM v_cluster THEN
    -- A copy of the database: as in take_outbox.
    UPDATE hawser.peer_outbox AS o
       SET cluster = v_cluster,
           xid = CASE
             WHEN o.cluster = v_last.cluster AND (
               pg_visible_in_snapshot(o.xid, v_last.done_from)
               OR (v_last.done_to IS NOT NULL AND pg_visible_in_snapshot(o.xid, v_last.done_to) AND o.id <= v_last.done_after)
             ) THEN '2'::xid8
             ELSE pg_current_xact_id()
           END
     WHERE o.cluster IS DISTINCT FROM v_cluster;
    v_last.done_from := '3:3:';
    v_last.done_to := NULL;
    v_last.done_after := 0;
  END IF;
  -- Fails if another relay has had this turn meanwhile.
  INSERT INTO hawser.peer_outbox_turns (turn, owner, done_from, done_to, done_after, cluster, epoch)
  VALUES (
    turn, p_owner, v_last.done_from, v_last.done_to, v_last.done_after, v_cluster,
    -- As in take_name.
    greatest(v_last.epoch + 1, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
  );
  can_notify := current_setting('max_prepared_transactions') = '0';
  PERFORM setval('hawser.peer_outbox_state_asleep_seq', 1);
END
