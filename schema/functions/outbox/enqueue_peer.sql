#variable_conflict use_column
DECLARE
  v_cluster CONSTANT bigint := hawser.present_cluster();
  v_headers CONSTANT jsonb := hawser.peer_headers(p_headers, p_message_id);
  v_length integer;
BEGIN
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
  IF p_key IS NOT NULL THEN
    PERFORM FROM hawser.outbox_keys AS k
     WHERE k.bucket = (hashtextextended(p_topic || ' ' || p_key, 0) & 4095)::integer
       FOR UPDATE;
  END IF;

  INSERT INTO hawser.peer_outbox (slot, topic, payload, headers, key, listener, cluster)
  SELECT (s.last_value - 1) % @OutboxConstants.slots@, p_topic, p.payload, v_headers, p_key, p_listener, v_cluster
    FROM unnest(p_payloads) WITH ORDINALITY AS p (payload, nth), hawser.peer_outbox_state_slot_seq AS s
   ORDER BY p.nth;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  id := currval('hawser.outbox_id_seq');

  -- Behind the insert, and from a sequence: as in enqueue_nats.
  IF (SELECT a.last_value FROM hawser.peer_outbox_state_asleep_seq AS a) = 2 THEN
    PERFORM pg_notify('hawser_peer_outbox', '');
  END IF;
END
