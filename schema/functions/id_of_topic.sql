#variable_conflict use_column
BEGIN
  SELECT t.k INTO id_of_topic.k FROM hawser_data.topics AS t WHERE t.topic = p_topic;
  IF FOUND THEN
    RETURN;
  END IF;

  -- The counter's row is the lock of all who make keys; after a wait for it, the table is read again with a new snapshot.
  PERFORM FROM hawser_data.id_counter AS s WHERE s.id = 1 FOR UPDATE;
  SELECT t.k INTO id_of_topic.k FROM hawser_data.topics AS t WHERE t.topic = p_topic;
  IF FOUND THEN
    RETURN;
  END IF;

  -- Lost, the key would be drawn again for another one, while peers know this one by it.
  PERFORM hawser.commit_durably();
  UPDATE hawser_data.id_counter AS s SET v = s.v + 1 WHERE s.id = 1 RETURNING s.v INTO STRICT id_of_topic.k;
  INSERT INTO hawser_data.topics (topic, k) VALUES (p_topic, id_of_topic.k);
END
