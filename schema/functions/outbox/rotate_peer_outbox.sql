#variable_conflict use_column
-- As rotate_outbox.
DECLARE
  v_number CONSTANT bigint := (SELECT s.last_value FROM hawser.peer_outbox_state_slot_seq AS s);
  v_next CONSTANT integer := v_number % @OutboxConstants.slots@;
  v_table CONSTANT text := 'hawser.peer_outbox_' || v_next;
  v_newest timestamptz;
  v_last hawser.peer_outbox_turns;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'hawser.rotate_peer_outbox needs READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'invalid_transaction_state';
  END IF;
  rotated := false;
  -- Nothing to remove.
  IF NOT EXISTS (SELECT FROM hawser.peer_outbox) AND (SELECT count(*) FROM (SELECT FROM hawser.peer_outbox_turns LIMIT 100) AS t) < 100 THEN
    RETURN;
  END IF;
  SELECT o.enqueued_at INTO v_newest FROM hawser.peer_outbox AS o WHERE o.slot = v_next ORDER BY o.id DESC LIMIT 1;
  IF v_newest > clock_timestamp() - p_retention_ms * interval '1 millisecond' THEN
    RETURN;
  END IF;
  BEGIN
    EXECUTE 'LOCK TABLE ONLY ' || v_table || ' IN ACCESS EXCLUSIVE MODE NOWAIT';
    LOCK TABLE ONLY hawser.peer_outbox_turns IN ACCESS EXCLUSIVE MODE NOWAIT;
  EXCEPTION
    WHEN lock_not_available THEN
      RETURN;
  END;
  SELECT t.* INTO STRICT v_last FROM hawser.peer_outbox_turns AS t ORDER BY t.turn DESC LIMIT 1;
  IF v_last.owner <> p_owner THEN
    RETURN;
  END IF;
  IF EXISTS (
    SELECT FROM hawser.peer_outbox AS o
     WHERE o.slot = v_next AND NOT pg_visible_in_snapshot(o.xid, v_last.done_from)
       AND (v_last.done_to IS NULL OR NOT pg_visible_in_snapshot(o.xid, v_last.done_to) OR o.id > v_last.done_after)
  ) THEN
    RETURN;
  END IF;
  EXECUTE 'TRUNCATE TABLE ONLY ' || v_table;
  TRUNCATE TABLE ONLY hawser.peer_outbox_turns;
  INSERT INTO hawser.peer_outbox_turns SELECT (v_last).*;
  PERFORM setval('hawser.peer_outbox_state_slot_seq', v_number + 1);
  rotated := true;
END
