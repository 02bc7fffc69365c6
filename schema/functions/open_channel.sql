#variable_conflict use_column
DECLARE
  v_composite text := p_sender_name || ':' || p_source_topic || ':' || p_listener_name;
BEGIN
  SELECT m.connection_key, coalesce(m.owner, m.listener_name)
    INTO open_channel.connection_key, open_channel.owner
    FROM hawser_data.channels AS m
   WHERE m.composite = v_composite;
  IF FOUND THEN
    RETURN;
  END IF;

  -- The counter's row is the lock of all who make keys; after a wait for it, the table is read again with a new snapshot.
  PERFORM FROM hawser_data.id_counter AS s WHERE s.id = 1 FOR UPDATE;
  SELECT m.connection_key, coalesce(m.owner, m.listener_name)
    INTO open_channel.connection_key, open_channel.owner
    FROM hawser_data.channels AS m
   WHERE m.composite = v_composite;
  IF FOUND THEN
    RETURN;
  END IF;

  -- Lost, the key would be drawn again for another one, while peers know this one by it.
  PERFORM hawser.commit_durably();
  UPDATE hawser_data.id_counter AS s SET v = s.v + 1 WHERE s.id = 1 RETURNING s.v INTO STRICT open_channel.connection_key;
  INSERT INTO hawser_data.channels (composite, connection_key)
  VALUES (v_composite, open_channel.connection_key);
  open_channel.owner := p_listener_name;
END
