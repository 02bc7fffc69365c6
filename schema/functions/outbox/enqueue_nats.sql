#variable_conflict use_column
DECLARE
  v_cluster bigint;
BEGIN
  -- As present_cluster() does, in place: calling it takes twice the time.
  IF has_function_privilege('pg_catalog.pg_control_system()'::regprocedure, 'EXECUTE') THEN
    v_cluster := (pg_control_system()).system_identifier;
  END IF;
  IF p_headers IS NOT NULL THEN
    PERFORM hawser.check_headers(p_headers);
  END IF;
  IF p_deliver_at > clock_timestamp() THEN
    id := hawser.enqueue_later(
      'nats', p_subject, p_payloads, p_headers, p_key, p_message_id, p_to_stream, p_domain, p_deliver_at, NULL
    );
    IF id IS NULL THEN
      RETURN;
    END IF;
  ELSE
    IF p_key IS NOT NULL THEN
      PERFORM FROM hawser.outbox_keys AS k
       WHERE k.bucket = (hashtextextended(p_subject || ' ' || p_key, 0) & @OutboxConstants.max_key_bucket@)::integer
         FOR UPDATE;
    END IF;

    -- One array that is read from its beginning: its order is that of the ids. A sequence that was never set has no last value.
    INSERT INTO hawser.outbox (slot, destination, payload, headers, key, message_id, to_stream, domain, cluster)
    SELECT (coalesce(pg_sequence_last_value('hawser.outbox_state_slot_seq'), 1) - 1) % @OutboxConstants.slots@, p_subject, p.payload,
           nullif(p_headers, '{}'), p_key, coalesce(p_message_id, gen_random_uuid()::text), p_to_stream, p_domain, v_cluster
      FROM unnest(p_payloads) AS p (payload);
    IF NOT FOUND THEN
      RETURN;
    END IF;
    id := currval('hawser.outbox_id_seq');
  END IF;

  -- Behind the insert, by which the transaction has an id: the relay's last look before it sleeps sees that it is open. A
  -- sequence shows its present value, whatever the snapshot.
  IF pg_sequence_last_value('hawser.outbox_state_asleep_seq') = 2 THEN
    PERFORM pg_notify('hawser_outbox', '');
  END IF;
END
