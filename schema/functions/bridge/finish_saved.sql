BEGIN
  DELETE FROM hawser.saved_messages AS s USING hawser.nats_handlers AS h
  WHERE s.handler_id = h.id AND s.id = ANY (p_ids) AND h.token = p_token;
  GET DIAGNOSTICS finished = ROW_COUNT;
END
