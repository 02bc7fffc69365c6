BEGIN
  PERFORM hawser.enqueue_nats(subject, @payloads@, headers, key, NULL, true, domain, deliver_at);
END
