DECLARE
  present record;
  servers text[];
BEGIN
  SELECT array_agg(f.server_name) INTO servers FROM hawser.nats_foreign_servers() AS f;
  IF array_length(servers, 1) > 1 THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('a database has one NATS server, and here %s are defined: %s', array_length(servers, 1), array_to_string(servers, ', ')),
      HINT = format('DROP SERVER %I CASCADE, or alter the one that is there.', servers[array_upper(servers, 1)]);
  END IF;
  SELECT f.server_name, f.options INTO present FROM hawser.nats_foreign_servers() AS f;
  UPDATE hawser_bridge_data.nats_server AS s
  SET
    seen_server_name = present.server_name,
    seen_options = present.options,
    -- What hawser.set_nats_server has set outlives the end of a foreign server that it had replaced.
    options = CASE WHEN present.server_name IS NULL AND s.server_name IS NULL THEN s.options ELSE present.options END,
    server_name = present.server_name,
    changed_at = now()
  WHERE s.id = 1
    AND (s.seen_server_name, s.seen_options) IS DISTINCT FROM (present.server_name, present.options);
  changed := FOUND;
END
