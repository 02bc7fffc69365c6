#variable_conflict use_column
DECLARE
  v_roles CONSTANT text[] := (SELECT c.roles FROM hawser.callers_roles() AS c);
BEGIN
  IF cardinality(p_ids) > @StoreConstants.dead_letter_rows@ THEN
    RAISE EXCEPTION 'hawser.discard_dead_letters: % dead letters are given, and at most @StoreConstants.dead_letter_rows@ are taken', cardinality(p_ids)
      USING ERRCODE = 'invalid_parameter_value', HINT = 'Give them in several calls.';
  END IF;
  -- One at a time with all who retry, discard or expire: none finds half of what another takes.
  PERFORM hawser.lock_dead_letters(true);
  RETURN QUERY
  WITH gone AS (
    DELETE FROM hawser_data.dead_letters AS d
     WHERE d.id = ANY (p_ids) AND @is_own(d)@
    RETURNING d.id
  )
  SELECT g.id, NULL::text FROM gone AS g
  UNION ALL
  SELECT d.id, 'owner' FROM hawser_data.dead_letters AS d
   WHERE d.id = ANY (p_ids) AND @is_own(d)@ IS NOT TRUE;
END
