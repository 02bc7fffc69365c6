#variable_conflict use_column
DECLARE
  -- Segments are counted from 0, and the sequences from 1.
  v_number bigint;
  v_next smallint;
  v_table text;
  v_newest timestamptz;
  v_last hawser_data.outbox_turns;
  v_moved bigint[];
BEGIN
  rotated := false;
  v_number := (SELECT s.last_value FROM hawser_data.outbox_state_segment_seq AS s);
  v_next := v_number % @OutboxConstants.segments@;
  v_table := 'hawser_data.outbox_' || v_next;
  -- Nothing to remove.
  IF (SELECT count(*) FROM (SELECT FROM hawser_data.outbox_turns AS t LIMIT 100) AS t) < 100
    AND NOT EXISTS (SELECT FROM hawser_data.outbox AS o)
  THEN
    RETURN;
  END IF;
  SELECT o.enqueued_at INTO v_newest FROM hawser_data.outbox AS o WHERE o.segment = v_next ORDER BY o.id DESC LIMIT 1;
  IF v_newest > clock_timestamp() - p_retention_ms * interval '1 millisecond' THEN
    RETURN;
  END IF;
  BEGIN
    -- Not waited for: those who enqueue would wait behind it.
    EXECUTE 'LOCK TABLE ONLY ' || v_table || ' IN ACCESS EXCLUSIVE MODE NOWAIT';
    LOCK TABLE hawser_data.outbox_turns IN ACCESS EXCLUSIVE MODE NOWAIT;
  EXCEPTION
    WHEN lock_not_available THEN
      RETURN;
  END;
  -- No session writes into it now, so that what is in it is committed.
  SELECT t.* INTO STRICT v_last FROM hawser_data.outbox_turns AS t ORDER BY t.turn DESC LIMIT 1;
  IF v_last.owner <> p_owner THEN
    RETURN;
  END IF;
  v_moved := ARRAY(
    SELECT CASE WHEN u.lags THEN u.id END FROM hawser.outbox_undone(v_next, 10000 + 1, NULL) AS u
  );
  IF cardinality(v_moved) > 10000 OR array_position(v_moved, NULL) IS NOT NULL THEN
    RETURN;
  END IF;
  -- What lags behind keeps its number and its transaction, and does not keep the others.
  INSERT INTO hawser_data.outbox
    (segment, id, xid, destination, payload, headers, key, message_id, to_stream, domain, enqueued_at, cluster, first_enqueued_at,
     copy_of, role)
  SELECT (v_number - 1) % @OutboxConstants.segments@, o.id, o.xid, o.destination, o.payload, o.headers,
         o.key, o.message_id, o.to_stream, o.domain, o.enqueued_at, o.cluster, o.first_enqueued_at, o.copy_of, o.role
    FROM hawser_data.outbox AS o
   WHERE o.segment = v_next AND o.id = ANY (v_moved);
  EXECUTE 'TRUNCATE TABLE ONLY ' || v_table;
  TRUNCATE TABLE hawser_data.outbox_turns;
  INSERT INTO hawser_data.outbox_turns SELECT (v_last).*;
  PERFORM setval('hawser_data.outbox_state_segment_seq', v_number + 1);
  rotated := true;
END
