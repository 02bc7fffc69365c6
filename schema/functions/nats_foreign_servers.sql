DECLARE
  own CONSTANT bigint := pg_current_xact_id_if_assigned()::text::bigint;
  server record;
  since bigint;
BEGIN
  -- A wrapper is ours by its validator, whatever it is called.
  FOR server IN
    SELECT
      s.srvname,
      s.xmin::text::bigint AS written_by,
      (SELECT coalesce(jsonb_object_agg(o.option_name, o.option_value), '{}') FROM pg_options_to_table(s.srvoptions) AS o) AS options,
      (
        SELECT jsonb_object_agg(o.option_name, o.option_value)
        FROM pg_user_mappings AS m, pg_options_to_table(m.umoptions) AS o
        WHERE m.srvid = s.oid AND m.usename = current_user
      ) AS mapping
    FROM pg_foreign_server AS s
    JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw
    WHERE w.fdwvalidator = to_regprocedure('hawser_fdw.nats_fdw_validator(text[], oid)')
    ORDER BY s.oid
  LOOP
    server_name := server.srvname;
    options := server.options;
    mapping := server.mapping;
    uncommitted := false;
    -- A row that can be seen and whose transaction is in progress was written by this transaction or a subtransaction of
    -- it. Those have numbers from its own on; the row tells only the last 32 bits.
    since := (server.written_by - own) & 4294967295;
    IF since < 2147483648 THEN
      BEGIN
        uncommitted := coalesce(pg_xact_status((own + since)::text::xid8) = 'in progress', false);
      EXCEPTION
        -- A number that is not given yet: the row is older than Postgres can tell by it.
        WHEN invalid_parameter_value THEN NULL;
      END;
    END IF;
    RETURN NEXT;
  END LOOP;
END
