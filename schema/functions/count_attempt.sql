#variable_conflict use_column
BEGIN
  held := hawser.fenced(p_name, p_epoch);
  IF NOT held THEN
    RETURN;
  END IF;
  -- The cursor is absent until a message is done.
  PERFORM FROM hawser.lock_cursors(ARRAY[p_channel_id]);
  UPDATE hawser_peer_data.cursors AS c SET attempts = greatest(0, c.attempts + p_change) WHERE c.channel_id = p_channel_id
  RETURNING c.attempts INTO attempts;
END
