DECLARE
  v_start CONSTANT text := (SELECT s.start FROM hawser.stream_start('nats_seek_stream', p_start) AS s);
  v_present record;
BEGIN
  requested := false;
  IF p_name IS NULL OR p_start IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = format('nats_seek_stream: %s is NULL, and a value is needed', CASE WHEN p_name IS NULL THEN 'name' ELSE 'start' END);
  END IF;
  IF pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('replica'),
      MESSAGE = format('nats_seek_stream: %s', CASE WHEN pg_is_in_recovery() THEN 'this server is a standby' ELSE 'the transaction is read-only' END),
      HINT = (SELECT e.remedy FROM hawser.error_codes() AS e WHERE e.code = 'replica');
  END IF;
  FOR v_present IN SELECT h.* FROM hawser.lock_handlers('stream', p_name) AS h LOOP
    IF NOT pg_has_role(v_present.run_as, 'USAGE') THEN
      RAISE EXCEPTION USING
        ERRCODE = hawser.error_sqlstate('not_permitted'),
        MESSAGE = format('nats_seek_stream: the subscription %L was made by "%s", and "%s" is not in that role', p_name, v_present.run_as, current_user),
        HINT = format('Have "%s" do it.', v_present.run_as);
    END IF;
    -- Only the owner of the wrapper may write there: by that the other function knows that this may be done.
    EXECUTE format('COMMENT ON TYPE %s IS %L', v_present.token_type, gen_random_uuid()::text || ' ' || v_start);
    requested := (SELECT s.sought FROM hawser.apply_seek(p_name) AS s);
    RETURN;
  END LOOP;
  RAISE EXCEPTION USING
    ERRCODE = hawser.error_sqlstate('invalid_argument'),
    MESSAGE = format('nats_seek_stream: there is no subscription %L to a stream', left(p_name, 100)),
    HINT = 'SELECT name FROM hawser.stream_status shows which there are.';
END
