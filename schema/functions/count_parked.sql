#variable_conflict use_column
BEGIN
  held := hawser.fenced(p_name, p_epoch);
  IF NOT held THEN
    RETURN;
  END IF;
  UPDATE hawser_peer_data.parked_messages AS p
     SET attempts = p.attempts + 1
    FROM hawser_peer_data.channels AS m
   WHERE p.channel_id = p_channel_id AND p.epoch = p_message_epoch AND p.number = p_number
     AND m.channel_id = p.channel_id AND coalesce(m.owner, m.listener_name) = p_name
  RETURNING p.attempts INTO attempts;
END
