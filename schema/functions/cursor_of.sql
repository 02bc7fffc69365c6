#variable_conflict use_column
BEGIN
  SELECT c.epoch, c.number, c.has_rows INTO cursor_of.epoch, cursor_of.number, cursor_of.has_rows
    FROM hawser_peer_data.cursors AS c WHERE c.channel_id = p_channel_id
   ORDER BY c.channel_id DESC, c.epoch DESC, c.number DESC LIMIT 1;
END
