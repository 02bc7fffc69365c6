DECLARE
  v_id bigint;
  v_lock bigint;
BEGIN
  -- As enqueue_message does it, whose call would take twice the time.
  IF @plain key@ AND NOT starts_with(topic, @QueueConstants.reserved_prefix@) THEN
    IF key IS NOT NULL THEN
      PERFORM hawser.lock_key(topic, key);
    END IF;
    v_id := nextval('hawser_data.outbox_id_seq');
    INSERT INTO hawser_data.queue (topic, role, rank, id, key, payload)
    VALUES (topic, coalesce(nullif(current_setting('role'), 'none'), session_user), v_id, v_id, key, @plain_payload@)
    -- As wait_locks makes it.
    RETURNING hashtextextended('hawser:queue:' || (hashtextextended(enqueue.topic, 0) & 31), 0) INTO v_lock;
    -- As wake_topics asks.
    IF (
      CASE
        WHEN current_setting(@QueueConstants.waiting_setting@, true) = 'on' THEN true
        WHEN pg_try_advisory_lock(v_lock) THEN NOT pg_advisory_unlock(v_lock)
        ELSE true
      END
    ) THEN
      PERFORM pg_notify(@QueueConstants.channel@, topic) WHERE pg_notification_queue_usage() < 0.9;
    END IF;
    RETURN v_id;
  END IF;
  @checks@
  RETURN (hawser.enqueue_peer(topic, ARRAY[@payload@], @with_attempts(headers)@, key, message_id, NULL, deliver_at, to_all, NULL, priority))[1];
END
