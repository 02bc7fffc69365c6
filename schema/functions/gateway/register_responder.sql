BEGIN
  PERFORM hawser.bind_handler('responder', subject, fn_oid::pg_catalog.oid::pg_catalog.int8, pg_catalog.current_schemas(false)::pg_catalog.text[]);
END
