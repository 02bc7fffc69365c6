#variable_conflict use_column
DECLARE
  v_topics text[];
  v_done boolean;
BEGIN
  DELETE FROM hawser_data.workers AS w WHERE w.id = p_worker AND w.gone_at IS NULL RETURNING w.topics INTO v_topics;
  closed := FOUND;
  IF closed THEN
    v_done := hawser.wake_topics(v_topics);
  END IF;
END
