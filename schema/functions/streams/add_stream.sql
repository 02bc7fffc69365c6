#variable_conflict use_column
DECLARE
  v_handler bigint;
  v_present record;
  v_rule text;
  -- Of one dimension, whatever was given.
  v_filters CONSTANT text[] := ARRAY(SELECT f.filter FROM unnest(p_filters) AS f (filter));
  v_wrong text;
  v_start CONSTANT text := (SELECT s.start FROM hawser.stream_start('nats_subscribe_stream', p_start) AS s);
BEGIN
  added := false;
  IF p_stream IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = 'nats_subscribe_stream: stream is NULL, and a value is needed';
  END IF;
  SELECT f.filter INTO v_wrong FROM unnest(v_filters) AS f (filter)
   WHERE f.filter = '' OR octet_length(f.filter) > @stream_filter.max_bytes@ OR f.filter !~ @stream_filter.pattern@ LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('nats_subscribe_stream: filter has %L, and must have words joined by ''.'', of which each may be ''*'', and the last ''>''', left(v_wrong, 100)),
      HINT = 'Give subjects of up to @stream_filter.max_bytes@ bytes as NATS has them, or leave filter out for all messages.';
  END IF;
  SELECT h.id INTO v_handler FROM hawser_bridge_data.nats_handlers AS h WHERE h.kind = 'stream' AND h.subject = p_name ORDER BY h.id DESC LIMIT 1;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('hawser.add_stream: there is no handler %L of the kind stream', left(p_name, 100));
  END IF;
  SELECT s.* INTO v_present FROM hawser_bridge_data.stream_subscriptions AS s WHERE s.handler_id = v_handler ORDER BY s.turn DESC LIMIT 1;
  IF FOUND THEN
    IF (v_present.stream, v_present.filters) IS DISTINCT FROM (p_stream, v_filters)
      OR (v_present.key_token, v_present.domain) IS DISTINCT FROM (p_key_token, p_domain)
    THEN
      RAISE EXCEPTION USING
        ERRCODE = hawser.error_sqlstate('invalid_argument'),
        MESSAGE = format('nats_subscribe_stream: there is a subscription %L already, with another stream, filter, key_token or domain', p_name),
        HINT = format('Choose another name, or end that one: SELECT nats_unsubscribe_stream(%L)', p_name);
    END IF;
    RETURN;
  END IF;
  -- Of a handler that another transaction has made, somebody else may be the owner.
  IF NOT EXISTS (SELECT FROM hawser_bridge_data.nats_handlers AS h WHERE h.id = v_handler AND h.created_at = now()) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('not_permitted'),
      MESSAGE = format('hawser.add_stream: the handler %L was not made in this transaction', left(p_name, 100)),
      HINT = 'nats_subscribe_stream makes both.';
  END IF;
  INSERT INTO hawser_bridge_data.stream_subscriptions (handler_id, name, stream, domain, filters, key_token, consumer, start)
  VALUES (v_handler, p_name, p_stream, p_domain, v_filters, p_key_token,
          format('hawser_%s_%s', p_name, left(replace(gen_random_uuid()::text, '-', ''), 8)), v_start);
  added := true;
EXCEPTION
  WHEN check_violation THEN
    GET STACKED DIAGNOSTICS v_rule = CONSTRAINT_NAME;
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = CASE
        WHEN v_rule ~ '_name_' THEN format('nats_subscribe_stream: name is %L, and must be 1 to 100 letters of ASCII, digits, ''_'' and ''-''', left(p_name, 100))
        WHEN v_rule ~ '_stream_(bytes|pattern)' THEN format('nats_subscribe_stream: stream is %L, which is no name of a stream', left(p_stream, 100))
        WHEN v_rule ~ '_domain_' THEN format('nats_subscribe_stream: domain is %L, which is no JetStream domain', left(p_domain, 100))
        WHEN v_rule ~ '_key_token_' THEN format('nats_subscribe_stream: key_token is %s, and must be from 1 to 64', p_key_token)
        ELSE format('nats_subscribe_stream: filter is %L, and must be up to 100 subjects', left(p_filters::text, 100))
      END,
      HINT = CASE
        WHEN v_rule ~ '_stream_(bytes|pattern)' THEN E'It has no ''.'', ''*'', ''>'', ''/'' or ''\\'' and no white space, and at most 255 bytes.'
        WHEN v_rule ~ '_key_token_' THEN 'The first word of the subject has 1.'
        ELSE 'Give one that obeys the rule.'
      END;
END
