BEGIN
  RETURN hawser.enqueue_nats(subject, ARRAY[@payload@], headers, key, NULL, false, NULL, deliver_at);
END
