#variable_conflict use_column
DECLARE
  v_cluster CONSTANT bigint := hawser.present_cluster();
  v_old record;
BEGIN
  SELECT t.* INTO v_old FROM hawser.outbox_turns AS t ORDER BY t.turn DESC LIMIT 1;
  IF NOT FOUND THEN
    -- A dump that was made while old turns were removed has none. What it has kept is new.
    SELECT 1 AS turn, '' AS owner, '3:3:'::pg_snapshot AS done_from, NULL::pg_snapshot AS done_to, 0 AS done_after,
           '{}'::bigint[] AS skipped, NULL::bigint AS cluster
      INTO v_old;
  END IF;
  IF p_after <> v_old.owner THEN
    RETURN;
  END IF;
  turn := v_old.turn + 1;
  done_from := v_old.done_from;
  done_to := v_old.done_to;
  done_after := v_old.done_after;
  skipped := v_old.skipped;
  was_given_back := v_old.owner = '';
  IF v_cluster IS NOT NULL AND v_old.cluster IS DISTINCT FROM v_cluster THEN
    -- A copy of the database: transactions of the other cluster have ids here that mean nothing. What they have left undone
    -- becomes part of this transaction. What was written since, here or in a third cluster, is new anyway. 2 is older than
    -- everything.
    UPDATE hawser.outbox AS o
       SET cluster = v_cluster,
           xid = CASE
             WHEN o.cluster = v_old.cluster AND (
               pg_visible_in_snapshot(o.xid, v_old.done_from) OR o.id = ANY (v_old.skipped)
               OR (v_old.done_to IS NOT NULL AND pg_visible_in_snapshot(o.xid, v_old.done_to) AND o.id <= v_old.done_after)
             ) THEN '2'::xid8
             ELSE pg_current_xact_id()
           END
     WHERE o.cluster IS DISTINCT FROM v_cluster;
    done_from := '3:3:';
    done_to := NULL;
    done_after := 0;
    skipped := '{}';
  END IF;
  -- Fails if another relay has had this turn meanwhile.
  INSERT INTO hawser.outbox_turns (turn, owner, done_from, done_to, done_after, skipped, cluster)
  VALUES (turn, p_owner, done_from, done_to, done_after, skipped, v_cluster);
  can_notify := current_setting('max_prepared_transactions') = '0';
  PERFORM setval('hawser.outbox_state_asleep_seq', 1);
END
