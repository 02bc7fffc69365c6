#variable_conflict use_column
BEGIN
  SELECT c.epoch, c.number, c.attempts INTO cursor_of.epoch, cursor_of.number, cursor_of.attempts
    FROM hawser_peer_data.cursors AS c WHERE c.channel_id = p_channel_id
   ORDER BY c.channel_id DESC, c.epoch DESC, c.number DESC LIMIT 1;
END
