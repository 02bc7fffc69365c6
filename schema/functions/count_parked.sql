#variable_conflict use_column
BEGIN
  held := hawser.fenced(p_name, p_epoch);
  IF NOT held THEN
    RETURN;
  END IF;
  UPDATE hawser_data.parked_messages AS p
     SET attempts = p.attempts + 1
    FROM hawser_data.channels AS m
   WHERE p.connection_key = p_connection_key AND p.epoch = p_message_epoch AND p.number = p_number
     AND m.connection_key = p.connection_key AND coalesce(m.owner, m.listener_name) = p_name
  RETURNING p.attempts INTO attempts;
END
