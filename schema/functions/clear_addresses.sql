#variable_conflict use_column
BEGIN
  -- Locked to the end, so that nobody takes the name in between.
  PERFORM FROM hawser_data.owners AS o WHERE o.what = 'peer:' || p_name FOR UPDATE;
  IF EXISTS (SELECT FROM hawser_data.owners AS o WHERE o.what = 'peer:' || p_name AND hawser.is_alive(o.pid, o.life)) THEN
    RAISE EXCEPTION 'the peer "%" is running', p_name
      USING ERRCODE = 'object_in_use', HINT = 'Stop it first.';
  END IF;
  -- As in enter_directory.
  PERFORM FROM hawser_data.fences AS f WHERE f.what = 'directory' FOR UPDATE;
  DELETE FROM hawser_peer_data.listeners AS t WHERE t.topic = p_topic;
  GET DIAGNOSTICS deleted = ROW_COUNT;
  IF deleted > 0 THEN
    PERFORM hawser.record_act('clear_addresses', p_topic, NULL, jsonb_build_object('listeners', deleted));
  END IF;
END
