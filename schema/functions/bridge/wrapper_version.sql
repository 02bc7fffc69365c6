BEGIN
  -- Another one after each CREATE OR REPLACE and ALTER FUNCTION. Of all functions that have its name and its token: one that
  -- is as it should be does not hide another, which may be the one that a call reaches.
  SELECT string_agg(concat_ws(':', w.oid, w.xmin, w.proowner), ' ' ORDER BY w.oid) INTO version
  FROM pg_type AS t JOIN pg_proc AS w ON w.pronamespace = t.typnamespace AND w.proargtypes[0] = t.oid
  WHERE t.typnamespace = to_regnamespace('hawser_run') AND t.typname = 'token_' || right(p_wrapper, @BridgeConstants.wrapper_random_length@)
    AND w.proname = p_wrapper
  HAVING bool_and(w.prokind = 'f' AND w.prosecdef AND pg_get_userbyid(w.proowner) = p_run_as);
END
