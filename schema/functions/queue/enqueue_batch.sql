BEGIN
  RETURN hawser.enqueue_peer(topic, @payloads@, @with_attempts(headers)@, key, NULL, NULL, deliver_at, to_all, NULL, priority);
END
