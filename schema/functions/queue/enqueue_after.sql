BEGIN
  RETURN hawser.enqueue_after_peer(topic, @payload@, after, cancels, @with_attempts(headers)@, key, message_id, deliver_at, to_all, NULL, priority);
END
