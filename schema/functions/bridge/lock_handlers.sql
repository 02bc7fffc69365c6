#variable_conflict use_column
BEGIN
  -- Of the subject, not of the table: what one transaction leaves open holds up nobody but those who change the same.
  PERFORM pg_advisory_xact_lock(hashtextextended('hawser:handlers:' || p_kind || ':' || p_subject, 0));
  -- Another statement, which sees what was committed while the first one waited. By the type of its token, which nobody
  -- else may use: others may have functions of the same name.
  RETURN QUERY
  SELECT h.wrapper, format('hawser_run.%I', t.typname), r.rolname::text, h.function_schema, h.function_name, h.argument_types
  FROM hawser.nats_handlers AS h
  JOIN pg_type AS t ON t.typnamespace = to_regnamespace('hawser_run') AND t.typname = 'token_' || right(h.wrapper, @BridgeConstants.wrapper_random_length@)
  JOIN pg_proc AS w ON w.pronamespace = t.typnamespace AND w.proname = h.wrapper AND w.proargtypes[0] = t.oid
    AND w.pronargs = CASE h.kind WHEN 'subscription' THEN @BridgeConstants.subscription_arguments@ ELSE @BridgeConstants.responder_arguments@ END
  JOIN pg_roles AS r ON r.oid = w.proowner
  WHERE h.kind = p_kind AND h.subject = p_subject
  ORDER BY h.id;
END
