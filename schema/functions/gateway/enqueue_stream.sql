BEGIN
  RETURN hawser.enqueue_nats(subject, ARRAY[@payload@], headers, key, message_id, true, domain, deliver_at);
END
