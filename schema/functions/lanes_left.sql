#variable_conflict use_column
DECLARE
  v_cursor record;
BEGIN
  held := hawser.fenced(p_name, p_epoch);
  IF NOT held OR NOT EXISTS (SELECT FROM hawser_peer_data.channels AS m WHERE m.channel_id = p_channel_id AND m.listener_name = p_name) THEN
    held := false;
    RETURN;
  END IF;
  -- Behind the lock of the cursor: no row of the channel is on its way.
  PERFORM FROM hawser.lock_cursors(ARRAY[p_channel_id]);
  SELECT o.epoch, o.number, o.has_rows INTO v_cursor FROM hawser.cursor_of(p_channel_id) AS o;
  -- The newest first: those that were taken since an old snapshot are in front of them.
  IF v_cursor.has_rows AND (
    SELECT q.rank FROM hawser_data.queue AS q WHERE q.channel_id = p_channel_id ORDER BY q.channel_id DESC, q.key DESC, q.topic DESC, q.rank DESC LIMIT 1
  ) IS NULL THEN
    UPDATE hawser_peer_data.cursors AS c SET has_rows = false
     WHERE c.channel_id = p_channel_id AND c.epoch = v_cursor.epoch AND c.number = v_cursor.number;
    v_cursor.has_rows := false;
  END IF;
  IF v_cursor.has_rows IS NOT TRUE THEN
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
