#variable_conflict use_column
DECLARE
  v_role CONSTANT text := coalesce(nullif(current_setting('role'), 'none'), session_user);
  v_done boolean;
BEGIN
  IF p_deliver_at IS NOT NULL THEN
    PERFORM hawser.check_due('hawser.enqueue', p_deliver_at);
  END IF;
  IF p_deliver_at > clock_timestamp() THEN
    IF p_key IS NOT NULL AND p_kind = 'peer' THEN
      -- What brings the message in needs the row of its key.
      PERFORM hawser.lock_key(p_destination, p_key);
    END IF;
    WITH written AS (
      INSERT INTO hawser_data.queue
        (topic, recipient, role, rank, id, later, later_xid, due_at, role_mark, key, origin, to_all, payload, headers, message_id, to_stream, domain)
      SELECT p_destination, @QueueConstants.later_mark@ || CASE p_priority WHEN 0 THEN '' ELSE @QueueConstants.priority_mark@ END || coalesce('@' || p_listener, ''),
             v_role, n.id - (p_priority::bigint << @QueueConstants.id_bits@), n.id, p_kind, pg_current_xact_id(), p_deliver_at, m.mark, p_key, p_origin, p_to_all,
             n.payload, p_headers, CASE p_kind WHEN 'nats' THEN coalesce(p_message_id, gen_random_uuid()::text) END, nullif(p_to_stream, false), p_domain
        FROM hawser.role_mark(v_role, p_kind) AS m, (SELECT nextval('hawser_data.outbox_id_seq') AS id, p.payload FROM unnest(p_payloads) AS p (payload)) AS n
      RETURNING id
    )
    SELECT array_agg(w.id ORDER BY w.id) INTO ids FROM written AS w;
  ELSE
    IF p_key IS NOT NULL THEN
      PERFORM hawser.lock_key(p_destination, p_key);
    END IF;
    IF p_kind = 'peer' THEN
      ids := hawser.queue_messages(
        p_destination, coalesce('@' || p_listener, ''), p_payloads, p_headers, p_key, v_role, p_origin, p_to_all, p_priority
      );
      RETURN;
    END IF;

    -- One array that is read from its beginning: its order is that of the ids. A sequence that was never set has no last value.
    WITH written AS (
      INSERT INTO hawser_data.outbox
        (segment, destination, payload, headers, key, message_id, to_stream, domain, cluster, role)
      SELECT (coalesce(pg_sequence_last_value('hawser_data.outbox_state_segment_seq'), 1) - 1) % @OutboxConstants.segments@,
             p_destination, p.payload, p_headers, p_key, p_message_id, p_to_stream, p_domain, hawser.present_cluster(), v_role
        FROM unnest(p_payloads) AS p (payload)
      RETURNING id
    )
    SELECT array_agg(w.id ORDER BY w.id) INTO ids FROM written AS w;
  END IF;
  IF ids IS NULL THEN
    ids := '{}';
    RETURN;
  END IF;

  -- Behind the insert, by which the transaction has an id: the relay's last poll before it sleeps sees that it is open. A
  -- sequence shows its present value, whatever the snapshot.
  IF p_kind = 'nats' THEN
    IF pg_sequence_last_value('hawser_data.outbox_state_asleep_seq') = 2 THEN
      PERFORM pg_notify('hawser_outbox', '') WHERE pg_notification_queue_usage() < 0.9;
    END IF;
  ELSIF p_deliver_at IS NOT NULL THEN
    v_done := hawser.announce_due(p_deliver_at);
  END IF;
END
