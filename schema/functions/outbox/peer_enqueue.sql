BEGIN
  RETURN hawser.enqueue_peer(topic, ARRAY[@payload@], headers, key, message_id, NULL, deliver_at);
END
