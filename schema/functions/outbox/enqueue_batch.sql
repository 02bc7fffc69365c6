BEGIN
  RETURN hawser.enqueue_peer(topic, @payloads@, headers, key, NULL, NULL, deliver_at, to_all, NULL, priority);
END
