#variable_conflict use_column
BEGIN
  -- A wrapper is ours by its validator, whatever it is called. A row that this transaction wrote belongs to a transaction
  -- in progress, or it could not be seen: its own, or a subtransaction of it.
  RETURN QUERY
  SELECT
    s.srvname::text,
    (SELECT coalesce(jsonb_object_agg(o.option_name, o.option_value), '{}') FROM pg_options_to_table(s.srvoptions) AS o),
    (
      SELECT jsonb_object_agg(o.option_name, o.option_value)
      FROM pg_user_mappings AS m, pg_options_to_table(m.umoptions) AS o
      WHERE m.srvid = s.oid AND m.usename = current_user
    ),
    coalesce(pg_xact_status(CASE
      WHEN s.xmin::text::bigint <= now_at.xmax & 4294967295 THEN now_at.xmax & ~4294967295 | s.xmin::text::bigint
      WHEN now_at.xmax > 4294967295 THEN (now_at.xmax & ~4294967295) - 4294967296 | s.xmin::text::bigint
    END::text::xid8) = 'in progress', false)
  FROM pg_foreign_server AS s
  JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw
  CROSS JOIN (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xmax) AS now_at
  WHERE w.fdwvalidator = to_regprocedure('hawser.nats_fdw_validator(text[], oid)')
  ORDER BY s.oid;
END
