BEGIN
  RETURN hawser.enqueue_nats(subject, @payloads@, stream, headers, key, NULL, domain, deliver_at);
END
