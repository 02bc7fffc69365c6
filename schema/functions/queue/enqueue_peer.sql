#variable_conflict use_column
DECLARE
  v_given jsonb := p_headers;
  v_headers jsonb;
  v_length integer;
  v_name text;
  v_value text;
BEGIN
  -- Beside those of the key, of the origin and of the id.
  IF @traced@ THEN
    v_given := hawser.with_trace(p_headers, @peer_headers.max_items@ - 3);
  END IF;
  IF v_given IS NOT NULL OR p_message_id IS NOT NULL THEN
    v_headers := hawser.peer_headers(v_given, p_message_id);
  END IF;
  -- The public functions have checked the topic; those who call this one have not.
  SELECT n.name, n.value INTO v_name, v_value
    FROM (
      VALUES ('topic', p_topic), ('listener', coalesce(p_listener, p_topic)),
             ('origin', CASE WHEN p_origin IS NULL THEN p_topic ELSE split_part(p_origin, ':', 1) END),
             ('topic of the origin', CASE WHEN p_origin IS NULL THEN p_topic WHEN strpos(p_origin, ':') > 0 THEN substr(p_origin, strpos(p_origin, ':') + 1) END)
    ) AS n (name, value)
   WHERE (octet_length(n.value) BETWEEN @peer_or_topic.min_bytes@ AND @peer_or_topic.max_bytes@ AND n.value ~ @peer_or_topic.pattern@)
         IS NOT TRUE
   LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('the %s %s cannot be that of a peer', v_name, coalesce(to_json(left(v_value, 60))::text, 'NULL')),
      HINT = 'Give @peer_or_topic.min_bytes@ to @peer_or_topic.max_bytes@ bytes without '':'' and control characters.';
  END IF;
  IF starts_with(p_topic, @QueueConstants.reserved_prefix@) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('internal_topic'),
      MESSAGE = format('the topic %s begins with %s, which is reserved', to_json(p_topic), @QueueConstants.reserved_prefix@),
      HINT = 'Choose another topic.';
  END IF;
  SELECT octet_length(p.payload) INTO v_length
    FROM unnest(p_payloads) AS p (payload)
   WHERE octet_length(p.payload) NOT BETWEEN 1 AND @peer_payload.max_bytes@
   LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('a payload for a peer has %s bytes, and must have 1 to %s', v_length, @peer_payload.max_bytes@),
      HINT = 'Give a payload of that size.';
  END IF;
  IF p_priority <> 0 AND p_key IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('the argument priority is %s, and a message with a key has none: those of a key are handled in order', p_priority),
      HINT = 'Leave out the priority, or the key.';
  END IF;
  IF p_to_all THEN
    PERFORM FROM hawser_data.topic_settings AS s WHERE s.topic = p_topic AND s.keep_ms IS NOT NULL;
    IF FOUND THEN
      RAISE EXCEPTION USING
        ERRCODE = hawser.error_sqlstate('invalid_argument'),
        MESSAGE = format('the message is for all listeners of its topic %s, and has a result of each', to_json(p_topic)),
        HINT = 'Enqueue it without to_all, or keep no result: with keep_ms => NULL hawser.keep_results ends that for the topic.';
    END IF;
  END IF;
  ids := hawser.enqueue_message(
    'peer', p_topic, p_payloads, v_headers, p_key, NULL, false, NULL, p_listener, p_deliver_at, coalesce(p_to_all, false), p_origin,
    coalesce(p_priority, 0)::smallint
  );
END
