DECLARE
  v_id bigint;
  v_is_asleep boolean;
BEGIN
  -- As enqueue_message does it, whose call would take twice the time.
  IF @plain key@ AND NOT starts_with(topic, @OutboxConstants.reserved_prefix@) THEN
    IF key IS NOT NULL THEN
      v_is_asleep := hawser.lock_key(topic, key);
    END IF;
    INSERT INTO hawser_data.outbox (segment, destination, payload, key, to_stream, cluster, role)
    VALUES (
      @OutboxConstants.segments@ + (coalesce(pg_sequence_last_value('hawser_data.outbox_state_peer_segment_seq'), 1) - 1) % @OutboxConstants.segments@,
      topic, @plain_payload@, key, false, hawser.present_cluster(), coalesce(nullif(current_setting('role'), 'none'), session_user)
    )
    RETURNING id, pg_sequence_last_value('hawser_data.outbox_state_peer_asleep_seq') = 2 INTO v_id, v_is_asleep;
    IF v_is_asleep THEN
      PERFORM pg_notify('hawser_peer_outbox', '') WHERE pg_notification_queue_usage() < 0.9;
    END IF;
    RETURN v_id;
  END IF;
  @checks@
  RETURN (hawser.enqueue_peer(topic, ARRAY[@payload@], headers, key, message_id, NULL, deliver_at, to_all, NULL))[1];
END
