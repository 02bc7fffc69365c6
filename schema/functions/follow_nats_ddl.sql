DECLARE
  validator CONSTANT regprocedure := to_regprocedure('hawser.nats_fdw_validator(text[], oid)');
BEGIN
  -- Called for the servers of other wrappers, too, and while the schema is being taken down: neither may fail here.
  IF to_regclass('hawser.nats_server') IS NULL OR to_regprocedure('hawser.follow_nats_server()') IS NULL THEN
    RETURN;
  END IF;
  IF TG_EVENT = 'sql_drop' THEN
    IF NOT EXISTS (
      SELECT FROM pg_event_trigger_dropped_objects() AS o
      WHERE o.classid = 'pg_foreign_server'::regclass
        OR (
          o.classid = 'pg_user_mapping'::regclass
          AND o.address_args[1] IN (SELECT f.server_name FROM hawser.nats_foreign_servers() AS f)
        )
    ) THEN
      RETURN;
    END IF;
    -- Where there are several, dropping them must be possible; as long as there are, none can be followed.
    IF (SELECT count(*) FROM hawser.nats_foreign_servers()) <= 1 THEN
      PERFORM hawser.follow_nats_server();
    END IF;
  ELSIF EXISTS (
    SELECT FROM pg_event_trigger_ddl_commands() AS c
    JOIN pg_foreign_server AS s ON c.classid = 'pg_foreign_server'::regclass AND s.oid = c.objid
    JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw
    WHERE w.fdwvalidator = validator
  ) THEN
    -- Refuses a second server, and the command with it.
    PERFORM hawser.follow_nats_server();
  ELSIF NOT EXISTS (
    SELECT FROM pg_event_trigger_ddl_commands() AS c
    JOIN pg_user_mappings AS m ON c.classid = 'pg_user_mapping'::regclass AND m.umid = c.objid
    JOIN pg_foreign_server AS s ON s.oid = m.srvid
    JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw
    WHERE w.fdwvalidator = validator
  ) THEN
    RETURN;
  END IF;
  -- What belongs to a user mapping stands in no table of ours: whoever listens reads it again.
  PERFORM pg_notify('hawser_nats_server', json_build_object('operation', 'update', 'id', 1)::text);
EXCEPTION
  WHEN undefined_table OR undefined_column OR undefined_function OR invalid_schema_name THEN
    RAISE WARNING 'the schema hawser is incomplete, and the NATS server was not followed: %', SQLERRM;
END
