BEGIN
  IF fn_oid IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = 'nats_unsubscribe: fn_oid is NULL, and a function is needed';
  END IF;
  PERFORM hawser.unbind_handler('subscription', subject, fn_oid::pg_catalog.oid::pg_catalog.int8);
END
