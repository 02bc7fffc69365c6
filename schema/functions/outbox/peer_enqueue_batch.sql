BEGIN
  PERFORM hawser.enqueue_peer(topic, @payloads@, headers, key, NULL, NULL);
END
