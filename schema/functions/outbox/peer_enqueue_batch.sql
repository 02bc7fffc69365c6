BEGIN
  PERFORM hawser.enqueue_peer(topic, @payloads@, headers, key, NULL, NULL, deliver_at);
END
