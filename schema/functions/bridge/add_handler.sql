#variable_conflict use_column
DECLARE
  rule text;
  other text;
  owner oid;
  overlapping text;
  most integer;
BEGIN
  IF p_subject = @GatewayConstants.nats_inbox_prefix@ OR starts_with(p_subject, @GatewayConstants.nats_inbox_prefix@ || '.') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('the subject %L cannot be subscribed to', left(p_subject, 300)),
      DETAIL = format('Below "%s" are the answers to requests that SQL functions make, those of all roles: each is for the session that asked.', @GatewayConstants.nats_inbox_prefix@),
      HINT = 'nats_request_text and its kin return the answer.';
  END IF;
  IF p_kind = 'responder' AND split_part(p_subject, '.', 1) IN ('$JS', '$SYS', '$KV', '$O') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('requests to %L cannot be answered by a function', left(p_subject, 300)),
      DETAIL = 'The NATS server answers there, to all who use streams, buckets and stores; a second answer would be taken for its own.',
      HINT = 'Choose another subject. A subscription hears what is published there.';
  END IF;
  -- A call by hand is refused what bind_handler refuses: under the same lock, and in the same isolation level.
  PERFORM FROM hawser.lock_handlers(p_kind, p_subject);
  SELECT w.proowner INTO owner FROM pg_type AS t JOIN pg_proc AS w ON w.pronamespace = t.typnamespace AND w.proargtypes[0] = t.oid
  WHERE t.typnamespace = to_regnamespace('hawser_run') AND t.typname = 'token_' || right(p_wrapper, @BridgeConstants.wrapper_random_length@) AND t.typowner = w.proowner
    AND w.proname = p_wrapper AND w.pronargs = CASE p_kind WHEN 'responder' THEN @BridgeConstants.responder_arguments@ ELSE @BridgeConstants.subscription_arguments@ END
    AND EXISTS (SELECT FROM hawser.wrapper_version(p_wrapper, pg_get_userbyid(w.proowner)) AS v WHERE v.version IS NOT NULL)
    -- It calls the function that it is entered for: names are shown, and nobody's are of more than that has.
    AND EXISTS (
      SELECT FROM pg_depend AS d JOIN pg_proc AS p ON p.oid = d.refobjid JOIN pg_namespace AS n ON n.oid = p.pronamespace
      WHERE d.classid = 'pg_proc'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_proc'::regclass
        AND (n.nspname, p.proname, oidvectortypes(p.proargtypes)) = (p_function_schema, p_function_name, p_argument_types));
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('hawser.add_handler: there is no wrapper %I of that function in the schema hawser_run', left(p_wrapper, 63));
  END IF;
  IF p_kind = 'responder' THEN
    SELECT h.run_as INTO other FROM hawser.lock_handlers(p_kind, p_subject) AS h LIMIT 1;
    IF FOUND THEN
      RAISE EXCEPTION USING
        ERRCODE = hawser.error_sqlstate('not_permitted'),
        MESSAGE = format('hawser.add_handler: requests to "%s" are answered by a function that "%s" has registered', p_subject, other),
        HINT = format('Have "%s" unregister it first.', other);
    END IF;
    SELECT h.subject, pg_get_userbyid(t.typowner) INTO overlapping, other
    FROM hawser_bridge_data.nats_handlers AS h
    JOIN pg_type AS t ON t.typnamespace = to_regnamespace('hawser_run') AND t.typname = 'token_' || right(h.wrapper, @BridgeConstants.wrapper_random_length@)
    WHERE h.kind = 'responder' AND h.subject <> p_subject AND hawser.subjects_overlap(h.subject, p_subject)
      AND NOT pg_has_role(owner, t.typowner, 'USAGE')
    ORDER BY h.id LIMIT 1;
    IF FOUND THEN
      RAISE EXCEPTION USING
        ERRCODE = hawser.error_sqlstate('not_permitted'),
        MESSAGE = format('a responder for "%s" would also get requests to "%s", which a function answers that "%s" has registered, and "%s" is not in that role', p_subject, overlapping, other, pg_get_userbyid(owner)),
        HINT = format('Choose subjects that no request can have in common, or have "%s" unregister it first.', other);
    END IF;
    -- Those whose wrapper is gone, or under another name for now: it would be there again beside this one.
    DELETE FROM hawser_bridge_data.nats_handlers AS h WHERE h.kind = p_kind AND h.subject = p_subject;
  END IF;
  IF p_kind = 'stream' THEN
    IF EXISTS (SELECT FROM hawser.lock_handlers(p_kind, p_subject)) THEN
      RAISE EXCEPTION USING
        ERRCODE = hawser.error_sqlstate('invalid_argument'),
        MESSAGE = format('hawser.add_handler: there is a subscription %L already', p_subject);
    END IF;
    DELETE FROM hawser_bridge_data.nats_handlers AS h WHERE h.kind = p_kind AND h.subject = p_subject;
  END IF;
  IF p_kind <> 'responder' THEN
    most := coalesce(
      (SELECT (s.options ->> 'max_role_subscriptions')::integer FROM hawser_bridge_data.nats_server AS s),
      (hawser.nats_server_options('{}') ->> 'max_role_subscriptions')::integer);
    -- All roles together hardly ever have as many, and to count them needs no type of theirs.
    PERFORM FROM hawser_bridge_data.nats_handlers AS h
    JOIN pg_type AS t ON (SELECT count(*) FROM hawser_bridge_data.nats_handlers AS a WHERE a.kind <> 'responder') >= most
     AND t.typnamespace = to_regnamespace('hawser_run') AND t.typname = 'token_' || right(h.wrapper, @BridgeConstants.wrapper_random_length@)
    WHERE h.kind <> 'responder' AND t.typowner = owner
    OFFSET most - 1 LIMIT 1;
    IF FOUND THEN
      RAISE EXCEPTION USING
        ERRCODE = hawser.error_sqlstate('subscription_limit'),
        MESSAGE = format('"%s" has %s subscriptions, as many as a role may have', pg_get_userbyid(owner), most),
        HINT = (SELECT e.remedy FROM hawser.error_codes() AS e WHERE e.code = 'subscription_limit');
    END IF;
  END IF;
  INSERT INTO hawser_bridge_data.nats_handlers AS h (kind, subject, function_schema, function_name, argument_types, wrapper, token)
  VALUES (p_kind, p_subject, p_function_schema, p_function_name, p_argument_types, p_wrapper, p_token)
  RETURNING h.id INTO id;
EXCEPTION
  WHEN check_violation THEN
    GET STACKED DIAGNOSTICS rule = CONSTRAINT_NAME;
    IF rule !~ 'subject' THEN
      RAISE;
    END IF;
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = CASE p_kind
        WHEN 'stream' THEN format('nats_subscribe_stream: name is %L, and must be 1 to 100 letters of ASCII, digits, ''_'' and ''-''', left(p_subject, 100))
        ELSE format('the subject %L cannot be subscribed to', left(p_subject, 300))
      END,
      DETAIL = CASE p_kind WHEN 'stream' THEN 'It is a name of its own, and no subject.' ELSE 'It is of 1 to 255 bytes: words joined by ''.'', without white space; ''*'' stands for a word, and ''>'' at the end for all the rest.' END,
      HINT = CASE p_kind WHEN 'stream' THEN 'Such as ''billing''.' ELSE 'Such as ''orders.*'' or ''orders.>''.' END;
END
