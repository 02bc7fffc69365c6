BEGIN
  IF headers IS NOT NULL THEN
    PERFORM hawser.check_headers(headers);
  END IF;
  RETURN hawser.enqueue_message('nats', subject, ARRAY[@payload@], headers, key, NULL, false, NULL, NULL, deliver_at);
END
