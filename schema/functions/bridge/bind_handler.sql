DECLARE
  caller CONSTANT oid := (SELECT r.oid FROM pg_roles AS r WHERE r.rolname = current_user);
  called CONSTANT text := CASE p_kind WHEN 'subscription' THEN 'nats_subscribe' WHEN 'stream' THEN 'nats_subscribe_stream' ELSE 'litmus_pgnats_register_responder' END;
  -- Types of arguments and, of a responder, of the result.
  accepted CONSTANT text[] := CASE p_kind
    WHEN 'responder' THEN ARRAY['bytea', 'text, text, text']
    ELSE ARRAY['bytea', 'bytea, text', 'bytea, text, jsonb', 'bytea[]', 'bytea[], text[]', 'bytea[], text[], jsonb[]']
  END;
  target record;
  context text;
  present record;
  stem text;
  looked_at name;
  settle text;
  call text;
  -- Of its name and of that of its token's type.
  random CONSTANT text := left(replace(gen_random_uuid()::text, '-', ''), @BridgeConstants.wrapper_random_length@);
  v_wrapper text;
  wrapper_oid oid;
  token CONSTANT bytea := decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex');
  proof CONSTANT text := format('sha256(p_token) = %L::bytea', sha256(token));
  path CONSTANT text := concat_ws(', ', (
    SELECT string_agg(quote_ident(s.name), ', ' ORDER BY s.nth)
    FROM unnest(p_path) WITH ORDINALITY AS s (name, nth) WHERE s.name !~ '^pg_(temp|toast_temp)_'
  ), 'pg_temp');
BEGIN
  bound := false;
  IF p_subject IS NULL OR p_function IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = format('%s: %s is NULL, and a value is needed', called, CASE WHEN p_subject IS NOT NULL THEN 'fn_oid' WHEN p_kind = 'stream' THEN 'name' ELSE 'subject' END);
  END IF;
  IF pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('replica'),
      MESSAGE = format('%s: %s', called, CASE WHEN pg_is_in_recovery() THEN 'this server is a standby' ELSE 'the transaction is read-only' END),
      HINT = (SELECT e.remedy FROM hawser.error_codes() AS e WHERE e.code = 'replica');
  END IF;

  SELECT p.oid, n.nspname AS schema, p.proname AS name, oidvectortypes(p.proargtypes) AS types, p.prokind AS kind, p.proretset AS set, p.provariadic <> 0 AS variadic,
         p.pronamespace AS namespace, format_type(p.prorettype, NULL) AS result, format('%I.%I(%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes)) AS called
  INTO target
  FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE p.oid = p_function;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('function_signature'),
      MESSAGE = format('%s: there is no function with the oid %s', called, p_function);
  END IF;
  IF target.schema ~ '^pg_temp_' THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('function_signature'),
      MESSAGE = format('%s: the function %s is a temporary one, and gone when this session ends', called, target.called),
      HINT = 'Make it in a schema that stays.';
  END IF;
  IF target.kind <> 'f' OR target.set OR target.variadic OR NOT target.types = ANY (accepted)
    OR (p_kind = 'responder' AND target.result <> CASE target.types WHEN 'bytea' THEN 'bytea' ELSE 'text' END)
  THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('function_signature'),
      MESSAGE = format('%s: %s %s cannot be called for messages of NATS', called,
        CASE WHEN target.kind = 'p' THEN 'the procedure' WHEN target.kind = 'a' THEN 'the aggregate' WHEN target.kind = 'w' THEN 'the window function'
          WHEN target.set THEN 'the set-returning function' ELSE 'the function' END,
        target.called || CASE WHEN p_kind = 'responder' AND target.kind <> 'p' THEN ' RETURNS ' || target.result ELSE '' END),
      HINT = format('Give it one of these signatures: %s.', CASE p_kind
        WHEN 'responder' THEN '(payload bytea) RETURNS bytea, (payload text, subject text, reply_to text) RETURNS text'
        ELSE '(payload bytea), (payload bytea, subject text), (payload bytea, subject text, headers jsonb); or, for a whole batch, ' ||
          '(payloads bytea[]), (payloads bytea[], subjects text[]), (payloads bytea[], subjects text[], headers jsonb[])' END);
  END IF;
  IF NOT has_function_privilege(target.oid, 'EXECUTE') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('not_permitted'),
      MESSAGE = format('%s: "%s" may not execute the function %s', called, current_user, target.called),
      HINT = format('GRANT EXECUTE ON FUNCTION %s TO %I', target.called, current_user);
  END IF;
  IF NOT has_schema_privilege(target.namespace, 'USAGE') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('not_permitted'),
      MESSAGE = format('%s: "%s" may not use the schema %I of the function %s', called, current_user, target.schema, target.called),
      HINT = format('GRANT USAGE ON SCHEMA %I TO %I', target.schema, current_user);
  END IF;
  IF NOT EXISTS (SELECT FROM pg_namespace AS n WHERE n.nspname = 'hawser_run') OR NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = 'hawser_executor') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('not_supported'),
      MESSAGE = format('%s: the schema hawser_run, or the role hawser_executor, is missing in this database', called),
      HINT = 'Run `hawser init` as a role that may make them; it says what is missing.';
  END IF;

  FOR present IN SELECT h.* FROM hawser.lock_handlers(p_kind, p_subject) AS h LOOP
    IF present.run_as = current_user
      AND (present.function_schema, present.function_name, present.argument_types) = (target.schema, target.name, target.types)
    THEN
      RETURN;
    END IF;
    IF p_kind = 'stream' THEN
      RAISE EXCEPTION USING
        ERRCODE = hawser.error_sqlstate('invalid_argument'),
        MESSAGE = format('%s: there is a subscription %L already, with the function %I.%I(%s) and the role "%s"', called, p_subject, present.function_schema, present.function_name, present.argument_types, present.run_as),
        HINT = format('Choose another name, or end that one: SELECT nats_unsubscribe_stream(%L)', p_subject);
    END IF;
    IF p_kind = 'responder' AND NOT pg_has_role(present.run_as, 'USAGE') THEN
      RAISE EXCEPTION USING
        ERRCODE = hawser.error_sqlstate('not_permitted'),
        MESSAGE = format('%s: requests to "%s" are answered by a function that "%s" has registered, and "%s" is not in that role', called, p_subject, present.run_as, current_user),
        HINT = format('Have "%s" unregister it first.', present.run_as);
    END IF;
  END LOOP;

  -- What CASCADE has left of this role's wrappers, and those whose function was dropped while they were being made. Another
  -- session of it may be at that, too. Where there are very many, those are looked at whose random begins as the new one's.
  looked_at := 'token_' || left(random, (
    SELECT CASE WHEN count(*) < 200 THEN 0 WHEN count(*) < 3000 THEN 1 ELSE 2 END FROM pg_type AS t
    WHERE t.typnamespace = 'hawser_run'::regnamespace AND t.typname >= 'token_' AND t.typname < 'token_g'));
  BEGIN
    FOR stem IN
      SELECT t.typname FROM pg_type AS t
      WHERE t.typnamespace = 'hawser_run'::regnamespace AND t.typname >= looked_at AND t.typname < looked_at || 'g'
        AND t.typowner = caller AND t.typtype = 'e' AND t.typname ~ '^token_[0-9a-f]{@BridgeConstants.wrapper_random_length@}$'
        -- Looked up for each type, because of OFFSET: any other plan reads the catalogs from end to end.
        AND NOT EXISTS (
          SELECT FROM pg_depend AS u JOIN pg_proc AS w ON w.oid = u.objid
          WHERE u.refclassid = 'pg_type'::regclass AND u.refobjid = t.oid AND u.classid = 'pg_proc'::regclass
            AND w.pronamespace = 'hawser_run'::regnamespace AND w.pronargs > 0 AND w.proargtypes[0] = t.oid
            AND NOT EXISTS (
              SELECT FROM pg_depend AS d
              WHERE d.classid = 'pg_proc'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_proc'::regclass
                AND NOT EXISTS (SELECT FROM pg_proc AS p WHERE p.oid = d.refobjid))
          OFFSET 0)
    LOOP
      EXECUTE format('DROP TYPE hawser_run.%I CASCADE', stem);
    END LOOP;
  EXCEPTION
    WHEN internal_error OR undefined_object THEN NULL;
  END;

  -- Deferred constraints and triggers are run within the wrapper, as its owner: at COMMIT they would be run as the login of
  -- the executor, which may do nothing. One of a name that others have given to theirs, too, could not be called.
  SELECT p.proname INTO settle FROM pg_proc AS p
  -- By its name, as it is made below: there is an index of names.
  WHERE p.pronamespace = 'hawser_run'::regnamespace AND p.proname >= 'settle ' AND p.proname < 'settle!'
    AND p.proowner = caller AND p.pronargs = 0 AND NOT p.prosecdef
    AND p.prosrc = 'BEGIN SET CONSTRAINTS ALL IMMEDIATE; END' AND p.proconfig IS NULL
    AND NOT EXISTS (SELECT FROM pg_proc AS o WHERE o.pronamespace = p.pronamespace AND o.proname = p.proname AND o.oid <> p.oid)
  ORDER BY p.oid LIMIT 1;
  IF settle IS NULL THEN
    settle := 'settle ' || random;
    EXECUTE format($$CREATE FUNCTION hawser_run.%I() RETURNS void LANGUAGE plpgsql AS 'BEGIN SET CONSTRAINTS ALL IMMEDIATE; END'$$, settle);
    EXECUTE format('REVOKE ALL ON FUNCTION hawser_run.%I() FROM PUBLIC; GRANT EXECUTE ON FUNCTION hawser_run.%1$I() TO %2$I', settle, current_user);
  END IF;

  -- A name that tells what it is where Postgres refuses to drop the function, and that nobody else has. With a space and the random end it has 63 bytes
  -- at most, as a name of Postgres.
  stem := left(format('%s.%s %s %s', target.schema, target.name, CASE p_kind WHEN 'responder' THEN 'answers' ELSE 'on' END, p_subject), 46);
  WHILE octet_length(stem) > 46 LOOP
    stem := left(stem, -1);
  END LOOP;
  v_wrapper := stem || ' ' || random;

  -- Others may make functions in the schema, too. With a type of its own, which nobody else may use, none of theirs is ever
  -- called in place of the wrapper, nor makes it ambiguous. It is passed as NULL, for which nothing is evaluated: a domain
  -- could be given constraints by its owner, which would run as the caller.
  EXECUTE format('CREATE TYPE hawser_run.token_%1$s AS ENUM (); REVOKE ALL ON TYPE hawser_run.token_%1$s FROM PUBLIC', random);

  -- Each message is announced by its id, from which what the function publishes into streams has its own: p_ids.
  -- What is deferred belongs to none of them: with the id of the last one it would be taken for what that one publishes when
  -- they are tried one by one.
  --
  -- Each message is handled within its own trace, too. Nothing is set where none of them has one: it would take as long as a
  -- fifth of a short function. Wrappers that are older have what the messages of a call share.
  --
  -- Bound by oid: while the wrapper is there the function cannot be dropped, and nothing else can take its place. Without
  -- the token nothing runs. Over unnest() also where there is one payload: the planner computes calls with constants, of
  -- functions said to be immutable, before it looks at any condition.
  --
  -- A function with arrays gets all messages at once, and what it publishes belongs to none of them. Without messages there is
  -- no call: an aggregate has a row of no rows, too.
  IF p_kind <> 'responder' THEN
    call := CASE
      WHEN starts_with(target.types, 'bytea[]') THEN format($$
        SELECT set_config('hawser.message', '', true), %I.%I(b.payloads%s)
        FROM (
          SELECT array_agg(substring(p_payloads FROM m.at FOR m.length)) AS payloads, array_agg(m.subject) AS subjects, array_agg(m.headers::jsonb) AS headers
          FROM unnest(p_offsets, p_lengths, p_subjects, p_headers) AS m (at, length, subject, headers) WHERE %s
          HAVING count(*) > 0
        ) AS b$$,
        target.schema, target.name,
        CASE target.types WHEN 'bytea[]' THEN '' WHEN 'bytea[], text[]' THEN ', b.subjects' ELSE ', b.subjects, b.headers' END, proof)
      ELSE format($$
        SELECT set_config('hawser.message', m.id, true),
          CASE WHEN m.parent IS NOT NULL OR current_setting(@TraceConstants.parent_setting@, true) <> ''
            THEN set_config(@TraceConstants.parent_setting@, coalesce(m.parent, ''), true) END,
          CASE WHEN m.state IS NOT NULL THEN set_config(@TraceConstants.state_setting@, m.state, true) END,
          %I.%I(substring(p_payloads FROM m.at FOR m.length)%s)
        FROM unnest(
          p_offsets, p_lengths, p_subjects, p_headers, p_ids, string_to_array(current_setting(@TraceConstants.parents_setting@, true), chr(10)),
          string_to_array(current_setting(@TraceConstants.states_setting@, true), chr(10))
        ) AS m (at, length, subject, headers, id, parent, state) WHERE %s$$,
        target.schema, target.name,
        CASE target.types WHEN 'bytea' THEN '' WHEN 'bytea, text' THEN ', m.subject' ELSE ', m.subject, m.headers::jsonb' END, proof)
    END;
    EXECUTE format($$
      CREATE FUNCTION hawser_run.%I(p_type hawser_run.token_%s, p_token bytea, p_payloads bytea, p_offsets integer[], p_lengths integer[], p_subjects text[], p_headers text[], p_ids text[])
      RETURNS bigint LANGUAGE sql SECURITY DEFINER PARALLEL UNSAFE SET search_path = %s
      BEGIN ATOMIC
        %s;
        SELECT set_config('hawser.message', '', true), set_config(@TraceConstants.parent_setting@, '', true), hawser_run.%I() WHERE %s;
        SELECT CASE WHEN %s THEN cardinality(p_lengths)::bigint ELSE 0 END;
      END$$,
      v_wrapper, random, path, call, settle, proof, proof);
  ELSE
    EXECUTE format($$
      CREATE FUNCTION hawser_run.%I(p_type hawser_run.token_%s, p_token bytea, p_payload bytea, p_subject text, p_reply text)
      RETURNS bytea LANGUAGE sql SECURITY DEFINER PARALLEL UNSAFE SET search_path = %s
      BEGIN ATOMIC
        WITH answer AS MATERIALIZED (SELECT %s AS payload FROM unnest(ARRAY[p_payload]) AS m (payload) WHERE %s),
        settled AS MATERIALIZED (SELECT hawser_run.%I() FROM answer)
        SELECT a.payload FROM answer AS a, settled;
      END$$,
      v_wrapper, random, path,
      CASE target.types
        WHEN 'bytea' THEN format('%I.%I(m.payload)', target.schema, target.name)
        ELSE format('convert_to(%I.%I(convert_from(m.payload, ''UTF8''), p_subject, p_reply), ''UTF8'')', target.schema, target.name)
      END, proof, settle);
  END IF;
  wrapper_oid := (SELECT w.oid FROM pg_proc AS w WHERE w.pronamespace = 'hawser_run'::regnamespace AND w.proname = v_wrapper AND w.proowner = caller);
  -- It calls the function that was named, the one that settles, and nothing else that anybody has made.
  IF ARRAY(
    SELECT DISTINCT d.refobjid FROM pg_depend AS d
    WHERE d.classid = 'pg_proc'::regclass AND d.objid = wrapper_oid AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)
    ORDER BY d.refobjid
  ) <> ARRAY(
    SELECT p.oid FROM pg_proc AS p
    WHERE p.oid = target.oid
      OR p.pronamespace = 'hawser_run'::regnamespace AND p.proname = settle AND p.proowner = caller AND p.pronargs = 0
    ORDER BY p.oid
  ) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('function_signature'),
      MESSAGE = format('%s: a call with the arguments (%s) does not reach %s', called, target.types, target.called),
      HINT = 'Another function of the same name comes before it; rename one of them.';
  END IF;
  EXECUTE format('REVOKE ALL ON FUNCTION %1$s FROM PUBLIC; GRANT EXECUTE ON FUNCTION %1$s TO hawser_executor; COMMENT ON FUNCTION %1$s IS %2$L',
    wrapper_oid::regprocedure, format('%s for "%s", made by %s. Dropped together with the function only by CASCADE.', target.called, p_subject, called));

  IF p_kind = 'responder' THEN
    GET DIAGNOSTICS context = PG_CONTEXT;
    FOR present IN SELECT h.* FROM hawser.lock_handlers(p_kind, p_subject) AS h LOOP
      -- It would be gone when it returns, and nothing of it committed.
      IF strpos(context, present.wrapper) > 0 THEN
        RAISE EXCEPTION USING
          ERRCODE = hawser.error_sqlstate('not_supported'),
          MESSAGE = format('%s: the function that "%s" reaches is running, and cannot replace itself', called, p_subject),
          HINT = 'Have another session do it.';
      END IF;
      EXECUTE format('DROP TYPE %s CASCADE', present.token_type);
    END LOOP;
  END IF;
  PERFORM hawser.add_handler(p_kind, p_subject, target.schema, target.name, target.types, v_wrapper, token);
  bound := true;
END
