BEGIN
  -- Another one after each CREATE OR REPLACE, ALTER FUNCTION and ALTER TYPE. Of all functions that have its name and its type:
  -- one that is as it should be does not hide another, which may be the one that a call reaches. What it returns is what is
  -- read; how its arguments are passed is what a call evaluates before it is there.
  SELECT string_agg(concat_ws(':', w.oid, w.xmin, w.proowner, t.oid, t.xmin), ' ' ORDER BY w.oid) INTO version
  FROM pg_type AS t JOIN pg_proc AS w ON w.pronamespace = t.typnamespace AND w.proargtypes[0] = t.oid
  WHERE t.typnamespace = to_regnamespace('hawser_run') AND t.typname = 'token_' || right(p_wrapper, @BridgeConstants.wrapper_random_length@)
    AND w.proname = p_wrapper
  HAVING bool_and(
    t.typtype = 'e' AND w.prokind = 'f' AND w.prosecdef AND pg_get_userbyid(w.proowner) = p_run_as
    AND NOT w.proretset AND w.pronargdefaults = 0 AND w.provariadic = 0 AND w.proallargtypes IS NULL
    AND w.prolang IN (SELECT l.oid FROM pg_language AS l WHERE l.lanname IN ('sql', 'plpgsql'))
    AND CASE w.pronargs
      WHEN @BridgeConstants.subscription_arguments@ THEN w.prorettype = 'bigint'::regtype
        AND (w.proargtypes::oid[])[1:] = '{bytea,bytea,integer[],integer[],text[],text[],text[]}'::regtype[]::oid[]
      WHEN @BridgeConstants.responder_arguments@ THEN w.prorettype = 'bytea'::regtype
        AND (w.proargtypes::oid[])[1:] = '{bytea,bytea,text,text}'::regtype[]::oid[]
      ELSE false
    END
    -- The function that it calls was dropped while it was being made.
    AND NOT EXISTS (
      SELECT FROM pg_depend AS d
      WHERE d.classid = 'pg_proc'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_proc'::regclass
        AND NOT EXISTS (SELECT FROM pg_proc AS p WHERE p.oid = d.refobjid)));
END
