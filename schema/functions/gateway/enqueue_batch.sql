BEGIN
  IF headers IS NOT NULL THEN
    PERFORM hawser.check_headers(headers);
  END IF;
  PERFORM hawser.enqueue_message('nats', subject, @payloads@, headers, key, NULL, false, NULL, NULL, deliver_at);
END
