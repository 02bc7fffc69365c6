#variable_conflict use_column
DECLARE
  v_topics CONSTANT text[] := ARRAY(SELECT DISTINCT t.topic FROM unnest(p_topics) AS t (topic) ORDER BY t.topic LIMIT 11);
BEGIN
  recorded := cardinality(p_ids) > 0;
  IF recorded THEN
    PERFORM hawser.record_act(
      p_action, CASE WHEN cardinality(v_topics) = 1 THEN v_topics[1] END, cardinality(p_ids),
      jsonb_build_object(
        'ids', to_jsonb(ARRAY(SELECT i.id FROM unnest(p_ids) AS i (id) ORDER BY i.id LIMIT @StoreConstants.audit_ids@)),
        -- The eleventh says that there are more.
        'topics', CASE WHEN cardinality(v_topics) > 1 THEN to_jsonb(ARRAY(SELECT left(t.topic, 255) FROM unnest(v_topics) AS t (topic))) END
      )
    );
  END IF;
END
