BEGIN
  DELETE FROM hawser.dead_letters AS d USING hawser.nats_handlers AS h
  WHERE d.id = p_id AND d.origin = 'subscription' AND d.retry_requested AND h.id = d.handler_id AND h.token = p_token;
  finished := FOUND;
END
