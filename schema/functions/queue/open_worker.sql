#variable_conflict use_column
DECLARE
  w hawser_data.workers;
  v_done boolean;
BEGIN
  v_done := hawser.check_places(p_topics);
  DELETE FROM hawser_data.workers AS o WHERE o.id = p_replaces RETURNING o.* INTO w;
  IF FOUND THEN
    v_done := hawser.note_ended(w.role, w.opened_at, w.running);
  END IF;
  INSERT INTO hawser_data.workers AS w (name, group_name, topics, lease_ms, concurrency)
  VALUES (p_name, coalesce(p_group, CASE WHEN strpos(p_name, ':') > 0 THEN @ProtocolConstants.default_group@ END), p_topics, p_lease_ms, p_concurrency)
  RETURNING w.id INTO worker;
  v_done := hawser.announce_lease(p_lease_ms);
END
