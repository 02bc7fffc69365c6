#variable_conflict use_column
BEGIN
  SELECT coalesce(array_agg(s.topic) FILTER (WHERE s.paused_at IS NULL AND num_nonnulls(s.rate, s.running, s.running_per_key) > 0), '{}'),
         jsonb_object_agg(s.topic, s.keep_ms) FILTER (WHERE s.keep_ms IS NOT NULL)
    INTO limited, keep_ms FROM hawser_data.topic_settings AS s WHERE s.topic = ANY (p_topics);
  topics := ARRAY(
    SELECT t.topic FROM unnest(p_topics) AS t (topic) WHERE NOT EXISTS (SELECT FROM hawser_data.topic_settings AS s WHERE s.topic = t.topic AND (s.paused_at IS NOT NULL OR s.topic = ANY (limited)))
  );
  IF topics = '{}' AND cardinality(limited) = 1 THEN
    topics := limited;
    SELECT a.at, least(p_most, a.most), a.per_key, a.key_header INTO at, starts, per_key, key_header FROM hawser.admit_starts(limited[1], NULL) AS a;
  END IF;
END
