#variable_conflict use_column
BEGIN
  SELECT coalesce(array_agg(s.topic) FILTER (WHERE NOT @is_paused(s)@ AND @is_limited(s)@), '{}'),
         jsonb_object_agg(s.topic, s.keep_ms) FILTER (WHERE s.keep_ms IS NOT NULL)
    INTO limited, keep_ms FROM hawser_data.topic_settings AS s WHERE s.topic = ANY (p_topics);
  topics := ARRAY(
    SELECT t.topic FROM unnest(p_topics) AS t (topic) WHERE NOT EXISTS (SELECT FROM hawser_data.topic_settings AS s WHERE s.topic = t.topic AND (@is_paused(s)@ OR s.topic = ANY (limited)))
  );
  IF topics = '{}' AND cardinality(limited) = 1 THEN
    topics := limited;
    SELECT a.at, least(p_most, a.most), a.per_key, a.key_header INTO at, starts, per_key, key_header FROM hawser.admit_starts(limited[1], NULL) AS a;
  END IF;
END
