#variable_conflict use_column
DECLARE
  v_token bytea;
  v_role text;
  v_role_id bigint;
  -- Of a stream: whether the position passes the message now.
  v_state text;
  v_fault CONSTANT text := (
    SELECT f.fault FROM hawser.dead_letter_fault('subscription', p_source, p_topic, p_headers, p_message_id) AS f
  );
BEGIN
  IF v_fault IS NOT NULL THEN
    RAISE EXCEPTION 'a dead letter of % is refused: %', p_source, v_fault
      USING ERRCODE = 'invalid_parameter_value', HINT = 'Give the message as it was received.';
  END IF;
  held := (SELECT f.held FROM hawser.fence_batch(p_epoch) AS f);
  IF NOT held THEN
    RETURN;
  END IF;
  -- The role that subscribed is the owner of the wrapper. If that is gone, nothing can be called again, and the dead letter is the
  -- schema owner's.
  SELECT h.token, pg_get_userbyid(w.proowner), w.proowner INTO v_token, v_role, v_role_id
    FROM hawser_bridge_data.nats_handlers AS h
    LEFT JOIN pg_type AS t ON t.typnamespace = to_regnamespace('hawser_run')
     AND t.typname = 'token_' || right(h.wrapper, @BridgeConstants.wrapper_random_length@)
    LEFT JOIN pg_proc AS w ON w.pronamespace = t.typnamespace AND w.proname = h.wrapper AND w.proargtypes[0] = t.oid
   WHERE h.id = p_handler AND h.kind <> 'responder'
   ORDER BY w.oid LIMIT 1;
  v_state := (
    SELECT m.state
      FROM hawser.mark_handled(
        p_handler, v_token, '{}', array_remove(ARRAY[p_saved], NULL), p_generation, p_done, p_last_done, p_last_done_at, p_lag, p_missing
      ) AS m
  );
  held := v_state <> 'moved';
  -- A message is dead-lettered once, however often it is tried.
  INSERT INTO hawser_data.dead_letters
    (origin, source, topic, payload, headers, error_code, error_message, attempts, handler_id, message_id, role, role_id)
  SELECT 'subscription', p_source, p_topic, p_payload, p_headers, left(p_error_code, @dead_letter_error_code.max_bytes@),
         p_error_message, p_attempts, p_handler, p_message_id, coalesce(v_role, current_user), coalesce(v_role_id, to_regrole(quote_ident(current_user))::oid::bigint)
   WHERE v_state = 'marked' AND NOT EXISTS (
     SELECT FROM hawser_data.dead_letters AS d
      WHERE d.message_id = p_message_id AND d.handler_id = p_handler AND d.origin = 'subscription'
   );
END
