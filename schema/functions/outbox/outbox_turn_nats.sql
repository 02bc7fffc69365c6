#variable_conflict use_column
-- In the order of its steps: whether the relay still works, the position, what is due, and what is read.
DECLARE
  v_secret CONSTANT text := (SELECT s.secret FROM hawser_data.outbox_state AS s);
  v_last hawser_data.outbox_turns;
  v_saves boolean := p_must_save OR p_due_from IS NOT NULL;
  v_excluded_roles text[];
  v_excluded_routes text[];
  v_xmax CONSTANT xid8 := pg_snapshot_xmax(p_read_from);
  v_xip CONSTANT xid8[] := ARRAY(SELECT pg_snapshot_xip(p_read_from));
  v_messages refcursor;
  v_message record;
  v_count integer := 0;
  v_bytes bigint := 0;
  v_after bigint := 0;
  v_has_more boolean := false;
  -- By whom a poll finds messages, a list of {role, route, from, first, last, count}.
  v_groups jsonb;
  -- Roles of which a poll reads nothing: they have more messages than fit.
  v_later text[] := '{}';
  v_rest jsonb;
  v_to pg_snapshot;
  v_due record;
  v_found_from jsonb;
  v_found_in_ms bigint;
BEGIN
  SELECT t.* INTO STRICT v_last FROM hawser_data.outbox_turns AS t ORDER BY t.turn DESC LIMIT 1;
  IF p_owner = '' OR v_last.owner <> p_owner OR v_last.turn NOT IN (p_turn, p_turn - 1) THEN
    state := 'lost';
    RETURN NEXT;
    RETURN;
  END IF;
  IF v_last.turn = p_turn THEN
    state := 'repeated';
    RETURN NEXT;
    RETURN;
  END IF;
  -- The next relay begins with them.
  IF p_series <> '[]' AND EXISTS (
    SELECT FROM jsonb_to_recordset(p_series) AS s (role text, "from" pg_snapshot, "to" pg_snapshot, after bigint)
     WHERE s.role IS NULL OR s."from" IS NULL OR s.after IS NULL
  ) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = 'an element of p_series has no role, from or after',
      HINT = 'Give a list of {role, route, from, to, after}.';
  END IF;
  IF v_saves THEN
    -- Fails if another relay has had this turn meanwhile. First, so that it also fences what is brought in.
    INSERT INTO hawser_data.outbox_turns (turn, owner, pid, done_from, done_to, done_after, series, skipped, cluster)
    VALUES (p_turn, p_owner, pg_backend_pid(), p_done_from, p_done_to, p_done_after, p_series, p_skipped, v_last.cluster);
  END IF;
  SELECT b.brought, b.due_from, b.due_in_ms INTO v_due FROM hawser.bring_later('nats', p_due_from) AS b WHERE p_due_from IS NOT NULL;
  IF p_asleep IS NOT NULL THEN
    PERFORM setval('hawser_data.outbox_state_asleep_seq', CASE WHEN p_asleep THEN 2 ELSE 1 END);
  END IF;

  IF p_read = 'poll' THEN
    -- A statement of its own, behind the setval: of those who have not seen that, it sees or lists all.
    SELECT pg_current_snapshot() INTO v_to;
    SELECT l.due_from, l.due_in_ms INTO v_found_from, v_found_in_ms FROM hawser.least_due('nats', p_later_from) AS l;
    -- Mostly there are few, which one statement reads, if they fit.
    IF p_read_series = '[]' THEN
      RETURN QUERY
        WITH new AS MATERIALIZED (
          SELECT o.* FROM hawser_data.outbox AS o WHERE o.xid >= v_xmax
          UNION ALL
          SELECT o.* FROM hawser_data.outbox AS o WHERE o.xid = ANY (v_xip)
          LIMIT p_max_messages + 1
        ), visible AS MATERIALIZED (
          SELECT n.*, (octet_length(n.payload) + coalesce(octet_length(n.headers::text), 0))::bigint AS size
            FROM new AS n WHERE pg_visible_in_snapshot(n.xid, v_to)
        )
        SELECT NULL::text, NULL::pg_snapshot, NULL::boolean, NULL::jsonb, NULL::integer, NULL::jsonb, NULL::bigint,
               n.id, n.role, n.destination, CASE WHEN f.fits THEN n.payload END,
               CASE WHEN f.fits THEN n.headers END, n.size, n.key,
               coalesce(n.message_id, @message_id(n)@),
               n.to_stream, n.domain, n.enqueued_at, n.first_enqueued_at, n.copy_of, NULL::timestamptz
          FROM visible AS n
         CROSS JOIN LATERAL (SELECT (n.size > p_max_payload) IS NOT TRUE AS fits) AS f
         WHERE (SELECT count(*) FROM new) <= p_max_messages
           AND (SELECT count(*) = 1 OR sum(least(v.size, p_max_payload)) <= p_max_bytes FROM visible AS v)
         ORDER BY n.id;
      GET DIAGNOSTICS v_count = ROW_COUNT;
    END IF;
    IF v_count = 0 THEN
      SELECT l.groups, l.later, l.messages INTO v_groups, v_later, v_messages
        FROM hawser.outbox_poll(p_read_from, v_to, p_read_series, p_max_messages) AS l;
    END IF;
    WHILE v_messages IS NOT NULL LOOP
      FETCH v_messages INTO v_message;
      EXIT WHEN NOT FOUND;
      bytes := octet_length(v_message.payload) + coalesce(octet_length(v_message.headers::text), 0);
      v_bytes := v_bytes + least(bytes, p_max_payload);
      v_has_more := v_count > 0 AND (v_count = p_max_messages OR v_bytes > p_max_bytes);
      EXIT WHEN v_has_more;
      v_count := v_count + 1;
      v_after := v_message.id;
      id := v_message.id;
      role := v_message.role;
      destination := v_message.destination;
      IF bytes > p_max_payload THEN
        payload := NULL;
        headers := NULL;
      ELSE
        payload := v_message.payload;
        headers := v_message.headers;
      END IF;
      key := v_message.key;
      message_id := coalesce(v_message.message_id, @message_id(v_message)@);
      to_stream := v_message.to_stream;
      domain := v_message.domain;
      enqueued_at := v_message.enqueued_at;
      first_enqueued_at := v_message.first_enqueued_at;
      copy_of := v_message.copy_of;
      RETURN NEXT;
    END LOOP;
    IF v_has_more OR v_later <> '{}' THEN
      -- Those who have more in it go on with pages of their own.
      v_rest := (
        SELECT jsonb_agg(jsonb_build_object(
                 'role', g.role, 'route', g.route, 'after', CASE WHEN g.role = ANY (v_later) THEN g.first - 1 ELSE v_after END
               ))
          FROM jsonb_to_recordset(v_groups) AS g (role text, route text, first bigint, last bigint)
         WHERE g.role = ANY (v_later) OR (v_has_more AND g.last > v_after)
      );
    END IF;
  ELSIF p_read = 'page' THEN
    SELECT coalesce(array_agg(x.role) FILTER (WHERE x.route IS NULL), '{}'),
           coalesce(array_agg(x.role || E'\n' || x.route) FILTER (WHERE x.route IS NOT NULL), '{}')
      INTO v_excluded_roles, v_excluded_routes
      FROM jsonb_to_recordset(p_read_excluded) AS x (role text, route text);
    -- By ids: each page that sorted the whole set would cost as much as the first.
    RETURN QUERY
      SELECT NULL::text, NULL::pg_snapshot, NULL::boolean, NULL::jsonb, NULL::integer, NULL::jsonb, NULL::bigint,
             p.id, p.role, p.destination, CASE WHEN p.fits THEN p.payload END,
             CASE WHEN p.fits THEN p.headers END, p.bytes, p.key,
             coalesce(p.message_id, @message_id(p)@),
             p.to_stream, p.domain, p.enqueued_at,
             p.first_enqueued_at, p.copy_of, NULL::timestamptz
        FROM (
          SELECT f.*, m.bytes, (m.bytes > p_max_payload) IS NOT TRUE AS fits, row_number() OVER w AS nth,
                 sum(least(m.bytes, p_max_payload)) OVER w AS upto
            FROM (
              SELECT n.*
                FROM (
                  SELECT o.* FROM hawser_data.outbox AS o WHERE o.id > p_read_after ORDER BY o.id OFFSET 0
                ) AS n
               WHERE (n.role = p_read_role OR p_read_role IS NULL)
                 AND (n.xid >= v_xmax OR n.xid = ANY (v_xip)) AND pg_visible_in_snapshot(n.xid, p_read_to)
                 AND (p_read_route IS NULL OR p_read_route = @route(n)@)
                 AND n.role <> ALL (v_excluded_roles)
                 AND (v_excluded_routes = '{}'
                   OR n.role || E'\n' || @route(n)@ <> ALL (v_excluded_routes))
               LIMIT p_max_messages
            ) AS f
           CROSS JOIN LATERAL (SELECT (octet_length(f.payload) + coalesce(octet_length(f.headers::text), 0))::bigint AS bytes) AS m
          WINDOW w AS (ORDER BY f.id)
        ) AS p
       WHERE p.nth = 1 OR p.upto <= p_max_bytes
       ORDER BY p.id;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    -- A full page may be the last one: the next one is empty then. So a full page costs no search for one more message.
    v_has_more := v_count = p_max_messages;
    IF NOT v_has_more THEN
      OPEN v_messages FOR
        SELECT n.*
          FROM (
            SELECT o.* FROM hawser_data.outbox AS o WHERE o.id > p_read_after ORDER BY o.id OFFSET 0
          ) AS n
         WHERE (n.role = p_read_role OR p_read_role IS NULL)
           AND (n.xid >= v_xmax OR n.xid = ANY (v_xip)) AND pg_visible_in_snapshot(n.xid, p_read_to)
           AND (p_read_route IS NULL OR p_read_route = @route(n)@)
           AND n.role <> ALL (v_excluded_roles)
           AND (v_excluded_routes = '{}'
             OR n.role || E'\n' || @route(n)@ <> ALL (v_excluded_routes))
         LIMIT p_max_messages + 1;
      -- It has ended before it was full: by its bytes, or as there is no more.
      MOVE FORWARD v_count FROM v_messages;
      FETCH v_messages INTO v_message;
      v_has_more := FOUND;
    END IF;
  END IF;

  id := NULL;
  payload := NULL;
  headers := NULL;
  IF p_dead IS NOT NULL THEN
    INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, headers, error_code, error_message, attempts, message_id, role, role_id, role_mark)
    SELECT DISTINCT ON (o.role, o.destination, m.message_id, o.payload)
           'outbox', CASE WHEN o.to_stream THEN coalesce(o.domain, '') ELSE 'core' END, o.destination, o.payload, (
             SELECT jsonb_agg(jsonb_build_array(h.key, v.value))
               FROM jsonb_each(o.headers) AS h,
                    jsonb_array_elements(CASE jsonb_typeof(h.value) WHEN 'array' THEN h.value ELSE jsonb_build_array(h.value) END) AS v
           ), d.code, d.message, d.attempts, m.message_id, o.role, o.role_id, hawser.role_mark(o.role, 'nats')
      FROM jsonb_to_recordset(p_dead) AS d (id bigint, code text, message text, attempts integer)
      JOIN hawser_data.outbox AS o ON o.id = d.id
     CROSS JOIN LATERAL (
       SELECT coalesce(o.message_id, @message_id(o)@) AS message_id
     ) AS m
     -- What was written into the outbox again is one dead letter with the first one.
     -- Looked up singly: a join would read all dead letters that there are.
     WHERE (
       SELECT k.id FROM hawser_data.dead_letters AS k
        WHERE k.role = o.role AND k.message_id = m.message_id AND k.origin = 'outbox' AND k.topic = o.destination AND k.payload = o.payload
        LIMIT 1
     ) IS NULL
     ORDER BY o.role, o.destination, m.message_id, o.payload, o.id;
  END IF;
  IF v_count > 0 AND NOT v_saves THEN
    INSERT INTO hawser_data.outbox_turns (turn, owner, pid, done_from, done_to, done_after, series, skipped, cluster)
    VALUES (p_turn, p_owner, pg_backend_pid(), p_done_from, p_done_to, p_done_after, p_series, p_skipped, v_last.cluster);
    v_saves := true;
  END IF;
  -- The commit of what is saved puts everything on disk that was read, whatever the database's default is. The others need not
  -- wait for a disk.
  IF NOT v_saves THEN
    PERFORM set_config('synchronous_commit', 'off', true);
  ELSE
    PERFORM hawser.commit_durably();
  END IF;
  state := CASE WHEN v_saves THEN 'saved' ELSE 'read' END;
  brought := coalesce(v_due.brought, 0);
  due_from := nullif(coalesce(v_due.due_from, '[]') || coalesce(v_found_from, '[]'), '[]');
  due_in_ms := least(v_due.due_in_ms, v_found_in_ms);
  bytes := NULL;
  done_to := v_to;
  rest := v_rest;
  has_more := v_has_more;
  as_of := clock_timestamp();
  RETURN NEXT;
END
