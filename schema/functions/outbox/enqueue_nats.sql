DECLARE
  v_headers jsonb := nullif(p_headers, '{}');
BEGIN
  IF p_headers IS NOT NULL THEN
    PERFORM hawser.check_headers(p_headers);
  END IF;
  IF NOT p_to_stream THEN
    -- Core NATS knows messages by no id, and has no domains.
    PERFORM hawser.refuse_argument('hawser.enqueue', a.name, to_json(left(a.value, 60))::text, 'needs stream => true')
       FROM (VALUES ('message_id', p_message_id), ('domain', p_domain)) AS a (name, value) WHERE a.value IS NOT NULL;
  END IF;
  IF @traced@ THEN
    v_headers := hawser.with_trace(v_headers, @nats_headers.max_items@);
  END IF;
  ids := hawser.enqueue_message(
    'nats', p_subject, p_payloads, v_headers, p_key, p_message_id, p_to_stream, p_domain, NULL, p_deliver_at, false, NULL, 0::smallint
  );
END
