BEGIN
  IF headers IS NOT NULL THEN
    PERFORM hawser.check_headers(headers);
  END IF;
  RETURN hawser.enqueue_message('nats', subject, ARRAY[@payload@], headers, key, message_id, true, domain, NULL, deliver_at);
END
