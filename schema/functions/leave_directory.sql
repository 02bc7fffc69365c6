#variable_conflict use_column
BEGIN
  held := hawser.fenced(p_name, p_epoch);
  IF NOT held THEN
    RETURN;
  END IF;

  -- As in enter_directory.
  PERFORM FROM hawser_data.fences AS f WHERE f.what = 'directory' FOR UPDATE;
  IF p_all THEN
    DELETE FROM hawser_peer_data.listeners AS t WHERE t.listener_name = p_name AND NOT (p_keep_durable AND t.durable);
    RETURN;
  END IF;
  DELETE FROM hawser_peer_data.listeners AS t WHERE t.listener_name = p_name AND t.topic = ANY (p_topics);
  -- After the directory: a sender that remembers the listener at this moment either waits for the deleted row and then
  -- finds none, or was waited for, and its route is deleted here.
  DELETE FROM hawser_peer_data.routes AS s WHERE s.listener_name = p_name AND s.listener_topic = ANY (p_topics);
END
