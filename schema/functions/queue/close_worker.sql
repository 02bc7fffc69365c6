#variable_conflict use_column
DECLARE
  w hawser_data.workers;
  v_done boolean;
BEGIN
  DELETE FROM hawser_data.workers AS o WHERE o.id = p_worker AND o.gone_at IS NULL RETURNING o.* INTO w;
  closed := FOUND;
  IF closed THEN
    v_done := hawser.check_places(w.topics);
    v_done := hawser.wake_topics(w.topics);
    v_done := hawser.remember_served(
      w.topics, array_fill(w.name, ARRAY[cardinality(w.topics)]),
      array_fill(floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint, ARRAY[cardinality(w.topics)])
    );
    v_done := hawser.note_ended(w.role, w.opened_at, coalesce(p_running, w.running));
  END IF;
END
