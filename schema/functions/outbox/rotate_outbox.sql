#variable_conflict use_column
DECLARE
  v_number CONSTANT bigint := (SELECT s.last_value FROM hawser.outbox_state_slot_seq AS s);
  -- Slots are counted from 0, and the sequence from 1.
  v_next CONSTANT integer := v_number % @OutboxConstants.slots@;
  v_table CONSTANT text := 'hawser.outbox_' || v_next;
  v_newest timestamptz;
  v_done hawser.outbox_turns;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'hawser.rotate_outbox needs READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'invalid_transaction_state';
  END IF;
  rotated := false;
  SELECT o.enqueued_at INTO v_newest FROM hawser.outbox AS o WHERE o.slot = v_next ORDER BY o.id DESC LIMIT 1;
  IF v_newest > clock_timestamp() - p_retention_ms * interval '1 millisecond' THEN
    RETURN;
  END IF;
  BEGIN
    -- Not waited for: those who enqueue would wait behind it.
    EXECUTE 'LOCK TABLE ONLY ' || v_table || ' IN ACCESS EXCLUSIVE MODE NOWAIT';
    LOCK TABLE ONLY hawser.outbox_turns IN ACCESS EXCLUSIVE MODE NOWAIT;
  EXCEPTION
    WHEN lock_not_available THEN
      RETURN;
  END;
  -- Nobody writes into it now, so that what is in it is committed.
  SELECT t.* INTO STRICT v_done FROM hawser.outbox_turns AS t ORDER BY t.turn DESC LIMIT 1;
  IF v_done.owner <> p_owner THEN
    RETURN;
  END IF;
  IF EXISTS (
    SELECT FROM hawser.outbox AS o
     WHERE o.slot = v_next AND o.id <> ALL (v_done.skipped) AND NOT pg_visible_in_snapshot(o.xid, v_done.done_from)
       AND (v_done.done_to IS NULL OR NOT pg_visible_in_snapshot(o.xid, v_done.done_to) OR o.id > v_done.done_after)
  ) THEN
    RETURN;
  END IF;
  EXECUTE 'TRUNCATE TABLE ONLY ' || v_table;
  TRUNCATE TABLE ONLY hawser.outbox_turns;
  INSERT INTO hawser.outbox_turns SELECT (v_done).*;
  PERFORM setval('hawser.outbox_state_slot_seq', v_number + 1);
  rotated := true;
END
