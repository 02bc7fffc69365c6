BEGIN
  SELECT s.position, s.done INTO done_to, done FROM hawser_bridge_data.stream_subscriptions AS s
  WHERE s.handler_id = p_handler AND s.generation = p_generation AND NOT s.paused
  ORDER BY s.turn DESC LIMIT 1;
END
