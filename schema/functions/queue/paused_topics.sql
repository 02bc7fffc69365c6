#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT s.topic FROM hawser_data.topic_settings AS s WHERE s.topic = ANY (p_topics) AND @is_paused(s)@;
END
