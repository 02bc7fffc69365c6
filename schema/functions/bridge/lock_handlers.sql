#variable_conflict use_column
BEGIN
  LOCK TABLE hawser.nats_handlers IN SHARE ROW EXCLUSIVE MODE;
  RETURN QUERY
  SELECT h.wrapper, r.rolname::text, h.function_schema, h.function_name, h.argument_types
  FROM hawser.nats_handlers AS h
  JOIN pg_proc AS w ON w.pronamespace = to_regnamespace('hawser_run') AND w.proname = h.wrapper
  JOIN pg_roles AS r ON r.oid = w.proowner
  WHERE h.kind = p_kind AND h.subject = p_subject
  ORDER BY h.id;
END
