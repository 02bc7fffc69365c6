#variable_conflict use_column
DECLARE
  v_locks text[] := '{}';
  v_lock text;
BEGIN
  -- A snapshot from before the wait would miss what the others have changed.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_transaction_state',
      MESSAGE = format('what NATS reaches is changed in READ COMMITTED, not %s', current_setting('transaction_isolation')),
      HINT = 'BEGIN ISOLATION LEVEL READ COMMITTED';
  END IF;
  -- One subject of a responder excludes others of other roles, which must not come in at the same time: those that may
  -- overlap begin with the same word, or one of them with a wildcard.
  IF p_kind = 'responder' AND left(p_subject, 1) IN ('*', '>') THEN
    PERFORM FROM hawser_data.fences AS f WHERE f.what = 'responders' FOR UPDATE;
  ELSIF p_kind = 'responder' THEN
    PERFORM FROM hawser_data.fences AS f WHERE f.what = 'responders' FOR SHARE;
    v_locks := ARRAY['responders:' || split_part(p_subject, '.', 1) || '.'];
  END IF;
  -- Of the subject, not of the table: what one transaction leaves open holds up nobody but those who change the same. A row
  -- that comes and goes: others cannot insert it before the end of this transaction, and nothing of it stays.
  FOREACH v_lock IN ARRAY v_locks || ('handler:' || p_kind || ':' || p_subject) LOOP
    INSERT INTO hawser_data.fences (what, epoch) VALUES (v_lock, 0);
    DELETE FROM hawser_data.fences AS f WHERE f.what = v_lock;
  END LOOP;
  -- Another statement, which sees what was committed while the first one waited. By the type of its own, which nobody
  -- else may use: others may have functions of the same name. The function by its oid: it may have another name by now.
  RETURN QUERY
  SELECT h.wrapper, format('hawser_run.%I', t.typname), r.rolname::text, coalesce(f.schema, h.function_schema), coalesce(f.name, h.function_name),
         coalesce(f.types, h.argument_types)
  FROM hawser_bridge_data.nats_handlers AS h
  JOIN pg_type AS t ON t.typnamespace = to_regnamespace('hawser_run') AND t.typname = 'token_' || right(h.wrapper, @BridgeConstants.wrapper_random_length@)
  JOIN pg_proc AS w ON w.pronamespace = t.typnamespace AND w.proname = h.wrapper AND w.proargtypes[0] = t.oid
    AND w.pronargs = CASE h.kind WHEN 'responder' THEN @BridgeConstants.responder_arguments@ ELSE @BridgeConstants.subscription_arguments@ END
    -- Not one whose function was dropped while it was being made.
    AND NOT EXISTS (
      SELECT FROM pg_depend AS d
      WHERE d.classid = 'pg_proc'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_proc'::regclass
        AND NOT EXISTS (SELECT FROM pg_proc AS p WHERE p.oid = d.refobjid))
  JOIN pg_roles AS r ON r.oid = w.proowner
  LEFT JOIN LATERAL (
    SELECT n.nspname::text AS schema, p.proname::text AS name, oidvectortypes(p.proargtypes) AS types
    FROM pg_depend AS d JOIN pg_proc AS p ON p.oid = d.refobjid AND p.pronargs > 0 JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE d.classid = 'pg_proc'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_proc'::regclass
    ORDER BY p.oid LIMIT 1
  ) AS f ON true
  WHERE h.kind = p_kind AND h.subject = p_subject
  ORDER BY h.id;
END
