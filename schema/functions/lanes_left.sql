#variable_conflict use_column
BEGIN
  held := hawser.fenced(p_name, p_epoch);
  IF NOT held OR NOT EXISTS (SELECT FROM hawser_peer_data.channels AS m WHERE m.channel_id = p_channel_id AND m.listener_name = p_name) THEN
    held := false;
    RETURN;
  END IF;
  -- Behind the lock of the cursor: no row of the channel is on its way.
  PERFORM FROM hawser.lock_cursors(ARRAY[p_channel_id]);
  IF NOT EXISTS (SELECT FROM hawser_data.queue AS q WHERE q.channel_id = p_channel_id) THEN
    UPDATE hawser_peer_data.cursors AS c SET has_rows = false WHERE c.channel_id = p_channel_id AND c.has_rows;
    has_rows := false;
    lanes := '{}';
    RETURN;
  END IF;
  has_rows := EXISTS (SELECT FROM hawser_data.queue AS q WHERE q.channel_id = p_channel_id AND q.topic = ANY (p_topics));
  lanes := ARRAY(
    SELECT l.lane
      FROM unnest(p_lanes) AS l (lane)
     WHERE EXISTS (
       SELECT FROM hawser_data.queue AS q WHERE q.channel_id = p_channel_id AND q.key = p_channel_id || ':' || l.lane AND q.topic = ANY (p_topics)
     )
  );
END
