BEGIN
  RETURN hawser.enqueue_unique_peer(topic, @payload@, unique_key, replaces, while_running, @with_attempts(headers)@, message_id, deliver_at, NULL, priority);
END
