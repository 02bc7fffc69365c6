DECLARE
  v_pair jsonb;
  v_object jsonb;
BEGIN
  fault := CASE
    WHEN jsonb_typeof(p_headers) <> 'array' THEN 'the headers are no array'
    WHEN p_origin = 'queue' THEN CASE
      WHEN NOT octet_length(p_topic) BETWEEN @peer_or_topic.min_bytes@ AND @peer_or_topic.max_bytes@ OR p_topic !~ @peer_or_topic.pattern@
        THEN 'the topic is none'
      WHEN octet_length(p_headers::text) > @dead_letter_headers.max_bytes@ THEN 'the headers are too large'
    END
    WHEN p_origin = 'outbox' THEN CASE
      WHEN NOT octet_length(p_topic) BETWEEN @nats_subject.min_bytes@ AND @nats_subject.max_bytes@ OR p_topic !~ @nats_subject.pattern@
        THEN 'the subject is none that can be published to'
      WHEN p_source <> '' AND (
        NOT octet_length(p_source) BETWEEN @jetstream_domain.min_bytes@ AND @jetstream_domain.max_bytes@ OR p_source !~ @jetstream_domain.pattern@
      ) THEN 'the JetStream domain is none'
      WHEN p_message_id IS NULL OR p_message_id !~ @enqueued_message_id.pattern@
        OR NOT octet_length(p_message_id) BETWEEN @enqueued_message_id.min_bytes@ AND @enqueued_message_id.max_bytes@
        THEN 'the message id is none'
    END
  END;
  IF fault IS NOT NULL OR p_headers IS NULL THEN
    RETURN;
  END IF;
  FOR v_pair IN SELECT e.value FROM jsonb_array_elements(p_headers) AS e (value) LOOP
    fault := CASE
      WHEN jsonb_typeof(v_pair) <> 'array' THEN 'a header is no pair'
      WHEN jsonb_array_length(v_pair) <> 2 OR jsonb_typeof(v_pair -> 0) <> 'string' OR jsonb_typeof(v_pair -> 1) <> 'string'
        THEN 'a header is no pair of texts'
      WHEN p_origin = 'queue' AND (v_pair ->> 0 !~ @header_name.pattern@ OR v_pair ->> 1 !~ @header_value.pattern@)
        THEN 'a header has characters that it may not have'
      WHEN p_origin = 'queue' AND octet_length(v_pair ->> 0) > @header_name.max_bytes@ THEN 'the name of a header is too long'
    END;
    IF fault IS NOT NULL THEN
      RETURN;
    END IF;
  END LOOP;
  IF p_origin = 'outbox' THEN
    v_object := (
      SELECT jsonb_object_agg(h.name, h.members)
        FROM (
          SELECT e.value ->> 0 AS name, jsonb_agg(e.value -> 1) AS members
            FROM jsonb_array_elements(p_headers) AS e (value) GROUP BY 1
        ) AS h
    );
    BEGIN
      PERFORM hawser.check_headers(v_object);
    EXCEPTION
      WHEN invalid_parameter_value THEN
        fault := 'the headers are none that can be published';
    END;
  END IF;
END
