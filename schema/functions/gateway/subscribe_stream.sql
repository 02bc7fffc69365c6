BEGIN
  PERFORM hawser.bind_handler('stream', name, fn_oid::pg_catalog.oid::pg_catalog.int8, pg_catalog.current_schemas(false)::pg_catalog.text[]);
  PERFORM hawser.add_stream(name, stream, coalesce(filter, '{}'), start, key_token, domain);
END
