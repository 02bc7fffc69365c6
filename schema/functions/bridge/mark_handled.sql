DECLARE
  v_marked jsonb;
  v_count integer;
  v_present record;
  v_done int8multirange;
  v_position bigint;
BEGIN
  state := 'marked';
  IF p_saved <> '{}' THEN
    DELETE FROM hawser_bridge_data.saved_messages AS s USING hawser_bridge_data.nats_handlers AS h
    WHERE s.handler_id = h.id AND h.id = p_handler AND h.token = p_token AND s.id = ANY (p_saved);
  END IF;
  IF p_queued <> '{}' THEN
    WITH gone AS (
      DELETE FROM hawser_data.queue AS q USING hawser_bridge_data.nats_handlers AS h
       WHERE h.id = p_handler AND h.token = p_token AND q.topic = @QueueConstants.function_prefix@ || h.id AND q.id = ANY (p_queued)
      RETURNING q.*
    )
    SELECT count(*), jsonb_agg(@marks_of(g)@) FILTER (WHERE @is_marked(g)@) INTO v_count, v_marked FROM gone AS g;
    IF v_count < cardinality(p_queued) THEN
      state := 'done';
      RETURN;
    END IF;
    IF v_marked IS NOT NULL THEN
      PERFORM hawser.end_marked(v_marked, true);
    END IF;
  END IF;
  IF p_generation IS NULL THEN
    RETURN;
  END IF;
  state := 'moved';
  SELECT s.turn, s.position, s.done, s.generation, s.paused INTO v_present
    FROM hawser_bridge_data.stream_subscriptions AS s JOIN hawser_bridge_data.nats_handlers AS h ON h.id = s.handler_id
   WHERE s.handler_id = p_handler AND h.token = p_token
   ORDER BY s.turn DESC LIMIT 1 FOR UPDATE OF s;
  IF NOT FOUND OR v_present.generation <> p_generation OR v_present.paused OR v_present.position IS NULL THEN
    RETURN;
  END IF;
  v_done := v_present.done + int8multirange(int8range(NULL, v_present.position + 1));
  IF p_done <@ v_done THEN
    state := 'done';
    RETURN;
  END IF;
  -- Some of them were committed by another transaction, which this one has waited for.
  IF p_done && v_done THEN
    RETURN;
  END IF;
  v_done := v_done + p_done;
  v_position := (SELECT upper(r.one) - 1 FROM unnest(v_done) AS r (one) WHERE lower_inf(r.one));
  UPDATE hawser_bridge_data.stream_subscriptions AS s
     SET turn = s.turn + 1, position = v_position, done = v_done - int8multirange(int8range(NULL, v_position + 1)),
         last_done = greatest(s.last_done, p_last_done),
         last_done_at = CASE WHEN s.last_done > p_last_done THEN s.last_done_at ELSE p_last_done_at END,
         lag = p_lag, problem = NULL, written_at = clock_timestamp(), missing = s.missing + p_missing,
         missing_reason = CASE WHEN p_missing > 0 THEN 'deleted' ELSE s.missing_reason END,
         missing_from = CASE WHEN p_missing > 0 THEN lower(p_done) ELSE s.missing_from END,
         missing_to = CASE WHEN p_missing > 0 THEN p_last_done - 1 ELSE s.missing_to END,
         missing_at = CASE WHEN p_missing > 0 THEN clock_timestamp() ELSE s.missing_at END
   WHERE s.handler_id = p_handler AND s.turn = v_present.turn;
  state := 'marked';
END
