#variable_conflict use_column
DECLARE
  v_cluster bigint;
  v_role CONSTANT text := CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END;
  v_bucket integer;
BEGIN
  IF p_deliver_at > clock_timestamp() THEN
    IF p_deliver_at > clock_timestamp() + interval '@OutboxConstants.max_later_days@ days' THEN
      RAISE EXCEPTION USING
        ERRCODE = hawser.error_sqlstate('invalid_argument'),
        MESSAGE = format('the argument deliver_at is %s, and must be within @OutboxConstants.max_later_days@ days', p_deliver_at),
        HINT = 'Give an earlier moment, or keep the message in a table of yours until then.';
    END IF;
    INSERT INTO hawser.outbox_later
      (id, kind, deliver_at, destination, payload, headers, key, message_id, to_stream, domain, listener, role)
    SELECT nextval('hawser.outbox_id_seq'), p_kind, p_deliver_at, p_destination, n.payload, nullif(p_headers, '{}'), p_key,
           coalesce(p_message_id, gen_random_uuid()::text), p_to_stream, p_domain, p_listener, v_role
      FROM (SELECT p.payload FROM unnest(p_payloads) WITH ORDINALITY AS p (payload, nth) ORDER BY p.nth) AS n;
  ELSE
    -- As present_cluster() does, in place: calling it takes twice the time.
    IF has_function_privilege('pg_catalog.pg_control_system()'::regprocedure, 'EXECUTE') THEN
      v_cluster := (pg_control_system()).system_identifier;
    END IF;
    IF p_key IS NOT NULL THEN
      -- The role has buckets of its own, so that it can hold up nobody else.
      v_bucket := hashtextextended(p_destination || ' ' || p_key, 0) & @OutboxConstants.max_key_bucket@;
      PERFORM FROM hawser.outbox_keys AS k WHERE k.role = v_role AND k.bucket = v_bucket FOR UPDATE;
      IF NOT FOUND THEN
        -- All at once: a transaction with REPEATABLE READ cannot lock what others make behind its snapshot.
        INSERT INTO hawser.outbox_keys (role, bucket)
        SELECT v_role, b FROM generate_series(0, @OutboxConstants.max_key_bucket@) AS b ON CONFLICT DO NOTHING;
        PERFORM FROM hawser.outbox_keys AS k WHERE k.role = v_role AND k.bucket = v_bucket FOR UPDATE;
      END IF;
    END IF;

    -- One array that is read from its beginning: its order is that of the ids. A sequence that was never set has no last value.
    IF p_kind = 'nats' THEN
      INSERT INTO hawser.outbox (slot, destination, payload, headers, key, message_id, to_stream, domain, cluster, role)
      SELECT (coalesce(pg_sequence_last_value('hawser.outbox_state_slot_seq'), 1) - 1) % @OutboxConstants.slots@, p_destination,
             p.payload, nullif(p_headers, '{}'), p_key, coalesce(p_message_id, gen_random_uuid()::text), p_to_stream, p_domain,
             v_cluster, v_role
        FROM unnest(p_payloads) AS p (payload);
    ELSE
      INSERT INTO hawser.outbox (slot, destination, payload, headers, key, message_id, to_stream, listener, cluster, role)
      SELECT @OutboxConstants.slots@ + (coalesce(pg_sequence_last_value('hawser.outbox_state_peer_slot_seq'), 1) - 1) % @OutboxConstants.slots@,
             p_destination, p.payload, p_headers, p_key, '', false, p_listener, v_cluster, v_role
        FROM unnest(p_payloads) AS p (payload);
    END IF;
  END IF;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  id := currval('hawser.outbox_id_seq');

  -- Behind the insert, by which the transaction has an id: the relay's last look before it sleeps sees that it is open. A
  -- sequence shows its present value, whatever the snapshot.
  IF p_kind = 'nats' THEN
    IF pg_sequence_last_value('hawser.outbox_state_asleep_seq') = 2 THEN
      PERFORM pg_notify('hawser_outbox', '');
    END IF;
  ELSIF pg_sequence_last_value('hawser.outbox_state_peer_asleep_seq') = 2 THEN
    PERFORM pg_notify('hawser_peer_outbox', '');
  END IF;
END
