#variable_conflict use_column
DECLARE
  v_released bigint[];
  v_cancelled bigint[];
  v_kept jsonb;
  v_count integer;
BEGIN
  -- Nobody waits: a transaction that locks a message, because another one is to come after it, may be open for long. What is left is looked
  -- at again. Of those that end at once, each that locks the message they hold sees what the ones before it have deleted.
  WITH met AS MATERIALIZED (
    SELECT e.before_id, e.after_id, d.is_done
      FROM hawser_data.flow_ends AS d
      JOIN hawser_data.flow_edges AS e ON e.before_id = d.id AND (d.is_done OR e.cancels)
      JOIN hawser_data.outbox_later AS l ON l.id = e.after_id
     LIMIT 1000
       FOR UPDATE OF l SKIP LOCKED
  ), gone AS (
    DELETE FROM hawser_data.flow_edges AS e USING met AS m WHERE e.before_id = m.before_id AND e.after_id = m.after_id
  )
  SELECT array_agg(DISTINCT m.after_id) FILTER (WHERE m.is_done), array_agg(DISTINCT m.after_id) FILTER (WHERE NOT m.is_done)
    INTO v_released, v_cancelled FROM met AS m;
  went_on := num_nonnulls(v_released, v_cancelled) > 0;

  WITH gone AS (
    DELETE FROM hawser_data.outbox_later AS l WHERE l.id = ANY (v_cancelled) AND l.kind = 'held' RETURNING l.*
  ), ended AS (
    INSERT INTO hawser_data.flow_ends (id, is_done) SELECT g.id, false FROM gone AS g
  )
  SELECT jsonb_agg(@kept_later(g)@) INTO v_kept FROM gone AS g WHERE @later_keep_ms(g)@ IS NOT NULL;
  IF v_kept IS NOT NULL THEN
    PERFORM hawser.keep_ended(v_kept, 'cancelled', NULL, NULL);
  END IF;
  UPDATE hawser_data.outbox_later AS l SET kind = 'peer', deliver_at = greatest(l.deliver_at, now())
   WHERE l.id = ANY (v_released) AND l.kind = 'held' AND NOT EXISTS (SELECT FROM hawser_data.flow_edges AS e WHERE e.after_id = l.id);

  -- Those that nothing is to follow from any more. One that was held itself is not held any more, either.
  WITH over AS MATERIALIZED (
    SELECT d.nth, d.id FROM hawser_data.flow_ends AS d
     WHERE NOT EXISTS (SELECT FROM hawser_data.flow_edges AS e WHERE e.before_id = d.id AND (d.is_done OR e.cancels))
     LIMIT 1000
       FOR UPDATE SKIP LOCKED
  ), edges AS (
    DELETE FROM hawser_data.flow_edges AS e USING over AS o WHERE e.after_id = o.id
  )
  DELETE FROM hawser_data.flow_ends AS d USING over AS o WHERE d.nth = o.nth;
  GET DIAGNOSTICS v_count = ROW_COUNT;
  went_on := went_on OR v_count > 0;
END
