#variable_conflict use_column
DECLARE
  v_cluster bigint;
  v_headers jsonb;
  v_length integer;
  v_name text;
  v_value text;
BEGIN
  -- As present_cluster() does, and as in enqueue_nats.
  IF has_function_privilege('pg_catalog.pg_control_system()'::regprocedure, 'EXECUTE') THEN
    v_cluster := (pg_control_system()).system_identifier;
  END IF;
  IF p_headers IS NOT NULL OR p_message_id IS NOT NULL THEN
    v_headers := hawser.peer_headers(p_headers, p_message_id, p_key);
  ELSIF p_key IS NOT NULL THEN
    v_headers := jsonb_build_array(jsonb_build_array(@ProtocolConstants.message_key_header@, p_key));
  END IF;
  -- The public functions have checked the topic; those who call this one have not.
  SELECT n.name, n.value INTO v_name, v_value
    FROM (VALUES ('topic', p_topic), ('listener', coalesce(p_listener, p_topic))) AS n (name, value)
   WHERE (octet_length(n.value) BETWEEN @peer_or_topic.min_bytes@ AND @peer_or_topic.max_bytes@ AND n.value ~ @peer_or_topic.pattern@)
         IS NOT TRUE
   LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('the %s %s cannot be that of a peer', v_name, coalesce(to_json(left(v_value, 60))::text, 'NULL')),
      HINT = 'Give @peer_or_topic.min_bytes@ to @peer_or_topic.max_bytes@ bytes without '':'' and control characters.';
  END IF;
  IF starts_with(p_topic, @OutboxConstants.reserved_prefix@) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('internal_topic'),
      MESSAGE = format('the topic %s begins with %s, which is reserved', to_json(p_topic), @OutboxConstants.reserved_prefix@),
      HINT = 'Choose another topic.';
  END IF;
  SELECT octet_length(p.payload) INTO v_length
    FROM unnest(p_payloads) AS p (payload)
   WHERE octet_length(p.payload) NOT BETWEEN 1 AND @OutboxConstants.max_peer_message_bytes@
   LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('a payload for a peer has %s bytes, and must have 1 to %s', v_length, @OutboxConstants.max_peer_message_bytes@),
      HINT = 'Give a payload of that size.';
  END IF;
  IF p_deliver_at > clock_timestamp() THEN
    id := hawser.enqueue_later('peer', p_topic, p_payloads, v_headers, p_key, NULL, false, NULL, p_deliver_at, p_listener);
    IF id IS NULL THEN
      RETURN;
    END IF;
  ELSE
    IF p_key IS NOT NULL THEN
      PERFORM FROM hawser.outbox_keys AS k
       WHERE k.bucket = (hashtextextended(p_topic || ' ' || p_key, 0) & @OutboxConstants.max_key_bucket@)::integer
         FOR UPDATE;
    END IF;

    INSERT INTO hawser.peer_outbox (slot, topic, payload, headers, key, listener, cluster)
    SELECT (coalesce(pg_sequence_last_value('hawser.peer_outbox_state_slot_seq'), 1) - 1) % @OutboxConstants.slots@, p_topic,
           p.payload, v_headers, p_key, p_listener, v_cluster
      FROM unnest(p_payloads) AS p (payload);
    IF NOT FOUND THEN
      RETURN;
    END IF;
    id := currval('hawser.outbox_id_seq');
  END IF;

  -- Behind the insert, and from a sequence: as in enqueue_nats.
  IF pg_sequence_last_value('hawser.peer_outbox_state_asleep_seq') = 2 THEN
    PERFORM pg_notify('hawser_peer_outbox', '');
  END IF;
END
