#variable_conflict use_column
DECLARE
  v_channel_name text := p_sender_name || ':' || p_source_topic || ':' || p_listener_name;
BEGIN
  SELECT m.channel_id
    INTO open_channel.channel_id
    FROM hawser_peer_data.channels AS m
   WHERE m.channel_name = v_channel_name;
  IF FOUND THEN
    RETURN;
  END IF;

  -- The counter's row is the lock of all who give ids; after a wait for it, the table is read again with a new snapshot.
  PERFORM FROM hawser_peer_data.id_counter AS s WHERE s.id = 1 FOR UPDATE;
  SELECT m.channel_id
    INTO open_channel.channel_id
    FROM hawser_peer_data.channels AS m
   WHERE m.channel_name = v_channel_name;
  IF FOUND THEN
    RETURN;
  END IF;

  -- Lost, the id would be given again to another one, while peers know this one by it.
  PERFORM hawser.commit_durably();
  UPDATE hawser_peer_data.id_counter AS s SET last_id = s.last_id + 1 WHERE s.id = 1 RETURNING s.last_id INTO STRICT open_channel.channel_id;
  INSERT INTO hawser_peer_data.channels (channel_name, channel_id)
  VALUES (v_channel_name, open_channel.channel_id);
END
