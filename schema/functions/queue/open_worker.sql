#variable_conflict use_column
BEGIN
  DELETE FROM hawser_data.workers AS w WHERE w.id = p_replaces;
  INSERT INTO hawser_data.workers AS w (name, group_name, topics, lease_ms, concurrency)
  VALUES (p_name, p_group, p_topics, p_lease_ms, p_concurrency)
  RETURNING w.id INTO worker;
END
