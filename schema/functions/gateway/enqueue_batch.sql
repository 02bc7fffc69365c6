BEGIN
  PERFORM hawser.enqueue_nats(subject, @payloads@, headers, key, NULL, false, NULL, deliver_at);
END
