#variable_conflict use_column
BEGIN
  IF p_deliver_at > clock_timestamp() + interval '@OutboxConstants.max_later_days@ days' THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('the argument deliver_at is %s, and must be within @OutboxConstants.max_later_days@ days', p_deliver_at),
      HINT = 'Give an earlier moment, or keep the message in a table of yours until then.';
  END IF;
  INSERT INTO hawser.outbox_later (id, kind, deliver_at, destination, payload, headers, key, message_id, to_stream, domain, listener)
  SELECT nextval('hawser.outbox_id_seq'), p_kind, p_deliver_at, p_destination, n.payload, nullif(p_headers, '{}'), p_key,
         coalesce(p_message_id, gen_random_uuid()::text), p_to_stream, p_domain, p_listener
    FROM (SELECT p.payload FROM unnest(p_payloads) WITH ORDINALITY AS p (payload, nth) ORDER BY p.nth) AS n;
  IF FOUND THEN
    id := currval('hawser.outbox_id_seq');
  END IF;
END
