#variable_conflict use_column
DECLARE
  v_cursor record;
  v_left integer[];
  v_changed boolean;
BEGIN
  IF starts_with(p_from, @QueueConstants.reserved_prefix@) THEN
    RAISE EXCEPTION 'the listener "%" begins with __#, which is reserved', p_from
      USING ERRCODE = 'invalid_parameter_value', HINT = 'Name the listener that is away.';
  END IF;

  -- Locked to the end, so that the listener cannot start in between.
  INSERT INTO hawser_data.owners (what, epoch) VALUES ('peer:' || p_from, 0) ON CONFLICT (what) DO NOTHING;
  PERFORM FROM hawser_data.owners AS o WHERE o.what = 'peer:' || p_from FOR UPDATE;
  IF NOT p_force AND EXISTS (SELECT FROM hawser_data.owners AS o WHERE o.what = 'peer:' || p_from AND hawser.is_alive(o.pid, o.life)) THEN
    RAISE EXCEPTION 'the listener "%" is running', p_from
      USING ERRCODE = 'object_in_use', HINT = 'Stop it first, or force it: then it ends with name_lost.';
  END IF;

  -- Alone: waits for the listener's writes under way and keeps out all later ones until its new epoch is there.
  INSERT INTO hawser_data.fences (what, epoch) VALUES ('peer:' || p_from, 0) ON CONFLICT (what) DO NOTHING;
  PERFORM FROM hawser_data.fences AS f WHERE f.what = 'peer:' || p_from FOR UPDATE;
  PERFORM hawser.end_ownership(p_from, true);
  UPDATE hawser_data.fences AS f SET epoch = o.epoch FROM hawser_data.owners AS o WHERE f.what = 'peer:' || p_from AND o.what = f.what;
  IF p_for_good THEN
    UPDATE hawser_peer_data.peers AS p SET replaced = true WHERE p.name = p_from AND NOT p.replaced;
  END IF;
  v_changed := FOUND AND p_for_good;

  released := false;
  IF EXISTS (
    SELECT FROM jsonb_to_recordset(p_left) AS j (channel_id integer, epoch bigint, number bigint)
     WHERE (j.channel_id = p_channel_id AND (j.epoch, j.number) <= (p_cursor_epoch, p_cursor)) IS NOT TRUE
  ) THEN
    RAISE EXCEPTION 'a message of "%" leaves its channel before the cursor passes it', p_from
      USING ERRCODE = 'invalid_parameter_value', HINT = 'Give with a cursor only messages of its channel up to it.';
  END IF;
  IF p_left IS NOT NULL AND EXISTS (
    SELECT FROM hawser_peer_data.channels AS m WHERE m.channel_id = p_channel_id AND m.listener_name = p_from
  ) THEN
    SELECT o.epoch, o.number INTO v_cursor FROM hawser.lock_cursors(ARRAY[p_channel_id]) AS o;
    -- On another server, after a failover, the cursor may be before what was read: what lies between would be passed.
    released := (v_cursor.epoch, v_cursor.number) >= (p_after_epoch, p_after_number) AND (v_cursor.epoch, v_cursor.number) < (p_cursor_epoch, p_cursor);
    IF released THEN
      v_left := (SELECT l.channel_ids FROM hawser.leave_channels(p_from, p_left, p_left_payloads) AS l);
      UPDATE hawser_peer_data.cursors AS c
         SET epoch = p_cursor_epoch, number = p_cursor, has_rows = c.has_rows OR v_left <> '{}'
       WHERE c.channel_id = p_channel_id AND c.epoch = v_cursor.epoch AND c.number = v_cursor.number;
      DELETE FROM hawser_peer_data.stored_messages AS d
       WHERE d.channel_id = p_channel_id AND (d.epoch, d.number) > (v_cursor.epoch, v_cursor.number) AND (d.epoch, d.number) <= (p_cursor_epoch, p_cursor);
    END IF;
  END IF;

  -- The peer that registered under the old epoch is gone: nothing new should be stored for it. Rows of operators and
  -- durable listeners go only for good. Last, because every peer that registers waits for this lock.
  PERFORM FROM hawser_data.fences AS f WHERE f.what = 'directory' FOR UPDATE;
  DELETE FROM hawser_peer_data.listeners AS t
   WHERE t.listener_name = p_from AND (p_for_good OR (t.epoch > 0 AND NOT t.durable));
  v_changed := v_changed OR released OR FOUND;
  UPDATE hawser_peer_data.listeners AS t SET epoch = 0 WHERE t.listener_name = p_from AND t.epoch > 0;
  -- Senders that know the listener would go on sending it one of each message for all.
  IF p_for_good THEN
    DELETE FROM hawser_peer_data.routes AS s WHERE s.listener_name = p_from;
  END IF;
  IF v_changed THEN
    PERFORM hawser.record_act(
      'reassign', p_from, CASE WHEN released THEN jsonb_array_length(p_left) ELSE 0 END, jsonb_build_object('to', p_to, 'channel', p_channel_id, 'force', p_force)
    );
  END IF;
END
