#variable_conflict use_column
DECLARE
  v_topics text[];
  v_name text;
  v_done boolean;
BEGIN
  DELETE FROM hawser_data.workers AS w WHERE w.id = p_worker AND w.gone_at IS NULL RETURNING w.topics, w.name INTO v_topics, v_name;
  closed := FOUND;
  IF closed THEN
    v_done := hawser.wake_topics(v_topics);
    v_done := hawser.remember_served(
      v_topics, array_fill(v_name, ARRAY[cardinality(v_topics)]),
      array_fill(floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint, ARRAY[cardinality(v_topics)])
    );
  END IF;
END
