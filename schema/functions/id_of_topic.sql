#variable_conflict use_column
BEGIN
  SELECT t.id INTO id_of_topic.id FROM hawser_peer_data.topics AS t WHERE t.topic = p_topic;
  IF FOUND THEN
    RETURN;
  END IF;

  -- The counter's row is the lock of all who give ids; after a wait for it, the table is read again with a new snapshot.
  PERFORM FROM hawser_peer_data.id_counter AS s WHERE s.id = 1 FOR UPDATE;
  SELECT t.id INTO id_of_topic.id FROM hawser_peer_data.topics AS t WHERE t.topic = p_topic;
  IF FOUND THEN
    RETURN;
  END IF;

  -- Lost, the id would be given again to another one, while peers know this one by it.
  PERFORM hawser.commit_durably();
  UPDATE hawser_peer_data.id_counter AS s SET last_id = s.last_id + 1 WHERE s.id = 1 RETURNING s.last_id INTO STRICT id_of_topic.id;
  INSERT INTO hawser_peer_data.topics (topic, id) VALUES (p_topic, id_of_topic.id);
END
