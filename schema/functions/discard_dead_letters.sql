#variable_conflict use_column
DECLARE
  v_gone bigint[];
  v_topics text[];
  v_roles CONSTANT text[] := (SELECT c.roles FROM hawser.callers_roles() AS c);
BEGIN
  IF cardinality(p_ids) > @StoreConstants.dead_letter_rows@ THEN
    RAISE EXCEPTION 'hawser.discard_dead_letters: % dead letters are given, and at most @StoreConstants.dead_letter_rows@ are taken', cardinality(p_ids)
      USING ERRCODE = 'invalid_parameter_value', HINT = 'Give them in several calls.';
  END IF;
  -- One at a time with all who retry, discard or expire: none finds half of what another takes.
  PERFORM hawser.lock_dead_letters(true);
  WITH gone AS (
    DELETE FROM hawser_data.dead_letters AS d
     WHERE d.id = ANY (p_ids) AND @is_own(d)@
    RETURNING d.id, d.topic, d.origin, d.job_id
  ), forgotten AS (
    DELETE FROM hawser_data.original_payloads AS o
     USING gone AS g
     WHERE o.origin = g.origin AND o.id = CASE g.origin WHEN 'queue' THEN g.job_id ELSE g.id END
  )
  SELECT array_agg(g.id), array_agg(g.topic) INTO v_gone, v_topics FROM gone AS g;
  PERFORM hawser.record_dead_letters('discard', v_gone, v_topics);
  RETURN QUERY
  SELECT g.id, NULL::text FROM unnest(v_gone) AS g (id)
  UNION ALL
  SELECT d.id, 'owner' FROM hawser_data.dead_letters AS d
   WHERE d.id = ANY (p_ids) AND @is_own(d)@ IS NOT TRUE;
END
