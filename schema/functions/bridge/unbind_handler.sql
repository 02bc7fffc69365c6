DECLARE
  called CONSTANT text := CASE p_kind WHEN 'subscription' THEN 'nats_unsubscribe' WHEN 'stream' THEN 'nats_unsubscribe_stream' ELSE 'litmus_pgnats_unregister_responder' END;
  present record;
  others text;
  context text;
BEGIN
  unbound := 0;
  IF p_subject IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = format('%s: %s is NULL, and a value is needed', called, CASE p_kind WHEN 'stream' THEN 'name' ELSE 'subject' END);
  END IF;
  IF pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('replica'),
      MESSAGE = format('%s: %s', called, CASE WHEN pg_is_in_recovery() THEN 'this server is a standby' ELSE 'the transaction is read-only' END),
      HINT = (SELECT e.remedy FROM hawser.error_codes() AS e WHERE e.code = 'replica');
  END IF;
  GET DIAGNOSTICS context = PG_CONTEXT;
  FOR present IN
    SELECT h.* FROM hawser.lock_handlers(p_kind, p_subject) AS h
    WHERE p_function IS NULL OR EXISTS (
      SELECT FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
      WHERE p.oid = p_function AND (n.nspname, p.proname, oidvectortypes(p.proargtypes)) = (h.function_schema, h.function_name, h.argument_types))
  LOOP
    IF pg_has_role(present.run_as, 'USAGE') THEN
      -- It would be gone when it returns, and nothing of it committed.
      IF strpos(context, present.wrapper) > 0 THEN
        RAISE EXCEPTION USING
          ERRCODE = hawser.error_sqlstate('not_supported'),
          MESSAGE = format('%s: the function that "%s" reaches is running, and cannot end itself', called, p_subject),
          HINT = 'Have another session do it.';
      END IF;
      EXECUTE format('DROP TYPE %s CASCADE', present.token_type);
      unbound := unbound + 1;
    ELSE
      others := present.run_as;
    END IF;
  END LOOP;
  IF unbound = 0 AND others IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('not_permitted'),
      MESSAGE = format('%s: what "%s" reaches was made by "%s", and "%s" is not in that role', called, p_subject, others, current_user),
      HINT = format('Have "%s" do it.', others);
  END IF;
  PERFORM hawser.prune_handlers();
END
