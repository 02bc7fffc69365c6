#variable_conflict use_column
-- In the order of its steps: whether the relay still works, the position, what is due, what is read, and the sink. A relay for
-- NATS says the position and gets the messages. One for peers has its position here, and gets the channels to notify.
DECLARE
  v_is_nats CONSTANT boolean := p_kind = 'nats';
  v_sink CONSTANT smallint := CASE p_kind WHEN 'nats' THEN 0 ELSE 1 END;
  v_slot CONSTANT smallint := v_sink * @OutboxConstants.slots@;
  v_last hawser.outbox_turns;
  v_secret text;
  v_saves boolean := p_must_save OR p_due_from IS NOT NULL;
  v_reads text[] := array_remove(ARRAY[p_read], NULL);
  v_read text;
  v_read_from pg_snapshot := p_read_from;
  v_read_to pg_snapshot := p_read_to;
  v_read_after bigint := p_read_after;
  v_read_series jsonb := coalesce(p_read_series, '[]');
  v_read_role text := p_read_role;
  v_read_route text := p_read_route;
  v_excluded_roles text[];
  v_excluded_routes text[];
  -- The series of a relay for peers, as they were and as they will be, and the first that has more.
  v_lagging jsonb;
  v_series jsonb := '[]';
  v_page jsonb;
  v_from pg_snapshot;
  v_to pg_snapshot;
  v_xmax xid8;
  v_xip xid8[];
  -- Roles that have series of routes.
  v_routed text[];
  -- What a look finds was returned, or is in v_ids.
  v_is_taken boolean;
  v_messages refcursor;
  v_message record;
  v_count integer;
  v_bytes bigint;
  -- Messages for all are counted as often as their topic has listeners: a turn writes a page, or the copies of one message.
  v_copies bigint;
  v_rows bigint;
  v_after bigint;
  v_has_more boolean;
  v_ids bigint[] := '{}';
  -- How many messages a look finds, the first and the last of their ids, and by whom: a list of {role, route, from, first, last, count}.
  v_new bigint;
  v_first bigint;
  v_last_id bigint;
  v_groups jsonb;
  -- Roles of which a look reads nothing: they have more messages than fit.
  v_later text[];
  v_due record;
  v_found timestamptz;
  v_beat_ms bigint;
  v_adopted integer[];
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'hawser.outbox_turn needs READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'invalid_transaction_state';
  END IF;
  PERFORM hawser.check_relay(p_kind);
  SELECT t.* INTO STRICT v_last FROM hawser.outbox_turns AS t WHERE t.sink = v_sink ORDER BY t.turn DESC LIMIT 1;
  IF v_last.owner <> p_owner OR v_last.turn NOT IN (p_turn, p_turn - 1) THEN
    state := 'lost';
    RETURN NEXT;
    RETURN;
  END IF;
  IF v_last.turn = p_turn THEN
    state := 'repeated';
    RETURN NEXT;
    RETURN;
  END IF;
  IF v_is_nats THEN
    v_secret := (SELECT s.secret FROM hawser.outbox_state AS s);
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
      INSERT INTO hawser.outbox_turns (sink, turn, owner, pid, done_from, done_to, done_after, series, skipped, cluster)
      VALUES (v_sink, p_turn, p_owner, pg_backend_pid(), p_done_from, p_done_to, p_done_after, p_series, p_skipped, v_last.cluster);
    END IF;
  ELSE
    -- It shows others that it is at work. Not each time: that writes to the log of Postgres.
    v_beat_ms := floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint;
    IF abs(v_beat_ms - coalesce(pg_sequence_last_value('hawser.outbox_state_peer_beat_seq'), 1)) >= @OutboxConstants.slow_poll_ms@ / 2 THEN
      PERFORM setval('hawser.outbox_state_peer_beat_seq', v_beat_ms);
    END IF;
    v_reads := '{look}';
    v_read_from := v_last.done_from;
    SELECT coalesce(jsonb_agg(s.position || jsonb_build_object('joins', s.position ->> 'to' IS NULL)), '[]'),
           jsonb_agg(s.position ORDER BY s.nth) FILTER (WHERE s.position ->> 'to' IS NOT NULL)
      INTO v_read_series, v_lagging
      FROM jsonb_array_elements(v_last.series) WITH ORDINALITY AS s (position, nth);
    v_page := v_lagging -> 0;
    IF v_page IS NOT NULL THEN
      v_reads := '{look,page}';
    END IF;
  END IF;
  SELECT b.brought, b.due_from, b.due_in_ms INTO v_due FROM hawser.bring_due(p_kind, p_due_from) AS b WHERE p_due_from IS NOT NULL;
  IF p_asleep IS NOT NULL THEN
    IF v_is_nats THEN
      PERFORM setval('hawser.outbox_state_asleep_seq', CASE WHEN p_asleep THEN 2 ELSE 1 END);
    ELSE
      PERFORM setval('hawser.outbox_state_peer_asleep_seq', CASE WHEN p_asleep THEN 2 ELSE 1 END);
    END IF;
  END IF;

  FOREACH v_read IN ARRAY v_reads LOOP
    v_is_taken := false;
    v_count := 0;
    v_bytes := 0;
    v_has_more := false;
    v_after := 0;
    IF v_read = 'look' THEN
      -- A statement of its own, behind the setval: of those who have not seen that, it sees or lists all.
      SELECT pg_current_snapshot() INTO v_to;
      IF p_later_from IS NULL THEN
        SELECT l.due_from INTO v_found FROM hawser.least_due(p_kind) AS l;
      ELSE
        SELECT min(l.deliver_at) INTO v_found FROM hawser.outbox_later AS l
         WHERE l.kind = p_kind
           AND (l.xid >= pg_snapshot_xmax(p_later_from) OR l.xid = ANY (ARRAY(SELECT pg_snapshot_xip(p_later_from))));
      END IF;
      v_xmax := pg_snapshot_xmax(v_read_from);
      v_xip := ARRAY(SELECT pg_snapshot_xip(v_read_from));
      IF v_read_series <> '[]' THEN
        -- What a series has not seen is new to it, too.
        SELECT least(v_xmax, min(pg_snapshot_xmax(s."from"))) INTO v_xmax
          FROM jsonb_to_recordset(v_read_series) AS s ("from" pg_snapshot, joins boolean) WHERE s.joins;
        v_xip := ARRAY(
          SELECT DISTINCT x.xid
            FROM (
              SELECT v_read_from AS seen UNION ALL
              SELECT s."from" FROM jsonb_to_recordset(v_read_series) AS s ("from" pg_snapshot, joins boolean) WHERE s.joins
            ) AS f, pg_snapshot_xip(f.seen) AS x (xid)
           WHERE x.xid < v_xmax
        );
      END IF;
      v_later := '{}';
      v_new := NULL;
      IF v_read_series = '[]' THEN
        -- Mostly there are few, which one statement reads, if they fit.
        IF v_is_nats THEN
          RETURN QUERY
            WITH new AS MATERIALIZED (
              SELECT o.* FROM hawser.outbox AS o WHERE o.slot BETWEEN v_slot AND v_slot + 2 AND o.xid >= v_xmax
              UNION ALL
              SELECT o.* FROM hawser.outbox AS o WHERE o.slot BETWEEN v_slot AND v_slot + 2 AND o.xid = ANY (v_xip)
              LIMIT p_max_messages + 1
            ), visible AS MATERIALIZED (
              SELECT n.*, (octet_length(n.payload) + coalesce(octet_length(n.headers::text), 0))::bigint AS size
                FROM new AS n WHERE pg_visible_in_snapshot(n.xid, v_to)
            )
            SELECT NULL::text, NULL::pg_snapshot, NULL::boolean, NULL::jsonb, NULL::integer, NULL::timestamptz, NULL::bigint, NULL::integer,
                   NULL::integer[], NULL::text[], NULL::text[], n.id, n.role, n.destination, CASE WHEN f.fits THEN n.payload END,
                   CASE WHEN f.fits THEN n.headers END, n.size, n.key,
                   coalesce(n.message_id, encode(substr(sha256(convert_to(v_secret || n.id || ' ' || extract(epoch FROM n.enqueued_at), 'UTF8')), 1, 16), 'hex')),
                   n.to_stream, n.domain, n.enqueued_at, n.first_enqueued_at, n.copy_of, NULL::timestamptz
              FROM visible AS n
             CROSS JOIN LATERAL (SELECT (n.size > p_max_payload) IS NOT TRUE AS fits) AS f
             WHERE (SELECT count(*) FROM new) <= p_max_messages
               AND (SELECT count(*) = 1 OR sum(least(v.size, p_max_payload)) <= p_max_bytes FROM visible AS v)
             ORDER BY n.id;
          GET DIAGNOSTICS v_count = ROW_COUNT;
        ELSE
          WITH new AS MATERIALIZED (
            SELECT o.id, o.xid, o.payload, o.headers, o.to_all FROM hawser.outbox AS o WHERE o.slot BETWEEN v_slot AND v_slot + 2 AND o.xid >= v_xmax
            UNION ALL
            SELECT o.id, o.xid, o.payload, o.headers, o.to_all FROM hawser.outbox AS o WHERE o.slot BETWEEN v_slot AND v_slot + 2 AND o.xid = ANY (v_xip)
            LIMIT p_max_messages + 1
          ), visible AS MATERIALIZED (
            SELECT n.id, n.to_all, (octet_length(n.payload) + coalesce(octet_length(n.headers::text), 0))::bigint AS size
              FROM new AS n WHERE pg_visible_in_snapshot(n.xid, v_to)
          )
          SELECT v_ids || coalesce(array_agg(n.id ORDER BY n.id), '{}'), count(*) INTO v_ids, v_count
            FROM visible AS n
           WHERE (SELECT count(*) FROM new) <= p_max_messages
             AND (SELECT count(*) = 1 OR (sum(v.size) <= p_max_bytes AND NOT bool_or(v.to_all)) FROM visible AS v);
        END IF;
        v_is_taken := v_count > 0;
        IF NOT v_is_taken THEN
          -- There is nothing, or it does not fit.
          SELECT count(*) FILTER (WHERE pg_visible_in_snapshot(n.xid, v_to)), count(*) INTO v_new, v_count
            FROM (
              SELECT o.xid FROM hawser.outbox AS o WHERE o.slot BETWEEN v_slot AND v_slot + 2 AND o.xid >= v_xmax
              UNION ALL
              SELECT o.xid FROM hawser.outbox AS o WHERE o.slot BETWEEN v_slot AND v_slot + 2 AND o.xid = ANY (v_xip)
              LIMIT p_max_messages + 1
            ) AS n;
          v_is_taken := v_new = 0 AND v_count <= p_max_messages;
          v_count := 0;
        END IF;
      END IF;
      IF NOT v_is_taken THEN
        -- Who has how many: first by transactions, all messages of which are visible or none. Without sorting, which takes far longer
        -- where there are many.
        v_routed := ARRAY(SELECT DISTINCT s.role FROM jsonb_to_recordset(v_read_series) AS s (role text, route text) WHERE s.route IS NOT NULL);
        PERFORM set_config('enable_sort', 'off', true);
        WITH series AS MATERIALIZED (
          SELECT s.* FROM jsonb_to_recordset(v_read_series) AS s (role text, route text, "from" pg_snapshot, joins boolean)
        ), transactions AS MATERIALIZED (
          SELECT n.role, n.route, n.xid, count(*) AS count, min(n.id) AS first, max(n.id) AS last
            FROM (
              SELECT o.role, o.xid, o.id,
                     CASE WHEN o.role = ANY (v_routed) THEN coalesce('domain ' || CASE WHEN o.to_stream THEN o.domain END, o.destination) END AS route
                FROM hawser.outbox AS o WHERE o.slot BETWEEN v_slot AND v_slot + 2 AND o.xid >= v_xmax
              UNION ALL
              SELECT o.role, o.xid, o.id,
                     CASE WHEN o.role = ANY (v_routed) THEN coalesce('domain ' || CASE WHEN o.to_stream THEN o.domain END, o.destination) END
                FROM hawser.outbox AS o WHERE o.slot BETWEEN v_slot AND v_slot + 2 AND o.xid = ANY (v_xip)
              OFFSET 0
            ) AS n
           GROUP BY 1, 2, 3
        )
        SELECT coalesce(sum(g.count), 0), min(g.first), max(g.last),
               jsonb_agg(jsonb_build_object('role', g.role, 'route', g.route, 'from', g."from", 'first', g.first, 'last', g.last, 'count', g.count))
          INTO v_new, v_first, v_last_id, v_groups
          FROM (
            SELECT t.role, s.route, coalesce(s."from", v_read_from)::text AS "from", sum(t.count) AS count, min(t.first) AS first, max(t.last) AS last
              FROM transactions AS t
              LEFT JOIN series AS x ON x.role = t.role AND x.route = t.route
              LEFT JOIN series AS y ON y.role = t.role AND y.route IS NULL
             CROSS JOIN LATERAL (
               SELECT coalesce(x."from", y."from") AS "from", coalesce(x.joins, y.joins) AS joins, x.route
             ) AS s
             WHERE coalesce(s.joins, true)
               AND pg_visible_in_snapshot(t.xid, v_to) AND NOT pg_visible_in_snapshot(t.xid, coalesce(s."from", v_read_from))
             GROUP BY 1, 2, 3
          ) AS g;
        PERFORM set_config('enable_sort', 'on', true);
        IF v_new > p_max_messages THEN
          -- Roles with few messages do not wait for one that has more than fits. If none fits, the oldest messages come first.
          SELECT coalesce(CASE WHEN bool_or(f.count <= p_max_messages) THEN array_agg(f.role) FILTER (WHERE f.count > p_max_messages) END, '{}')
            INTO v_later
            FROM (
              SELECT c.role, sum(c.count) OVER (ORDER BY c.count, c.role) AS count
                FROM (
                  SELECT g.role, sum(g.count) AS count FROM jsonb_to_recordset(v_groups) AS g (role text, count bigint) GROUP BY g.role
                ) AS c
            ) AS f;
        END IF;
        IF v_new <= p_max_messages OR v_later <> '{}' OR (v_new < @OutboxConstants.sorted_messages@ AND v_last_id - v_first > 4 * v_new) THEN
          -- By xids: in the order of ids, much that is done could be passed.
          OPEN v_messages FOR
            WITH series AS MATERIALIZED (
              SELECT s.* FROM jsonb_to_recordset(v_read_series) AS s (role text, route text, "from" pg_snapshot, joins boolean)
            )
            SELECT n.*
              FROM (
                SELECT o.* FROM hawser.outbox AS o
                 WHERE o.slot BETWEEN v_slot AND v_slot + 2 AND o.xid >= v_xmax AND o.role <> ALL (v_later)
                UNION ALL
                SELECT o.* FROM hawser.outbox AS o
                 WHERE o.slot BETWEEN v_slot AND v_slot + 2 AND o.xid = ANY (v_xip) AND o.role <> ALL (v_later)
                OFFSET 0
              ) AS n
              LEFT JOIN series AS x
                ON x.role = n.role AND x.route = coalesce('domain ' || CASE WHEN n.to_stream THEN n.domain END, n.destination)
              LEFT JOIN series AS y ON y.role = n.role AND y.route IS NULL
             CROSS JOIN LATERAL (SELECT coalesce(x."from", y."from") AS "from", coalesce(x.joins, y.joins) AS joins) AS s
             WHERE coalesce(s.joins, true)
               AND pg_visible_in_snapshot(n.xid, v_to) AND NOT pg_visible_in_snapshot(n.xid, coalesce(s."from", v_read_from))
             ORDER BY n.id LIMIT p_max_messages + 1;
        ELSE
          -- By ids: sorting the whole set would take longer.
          OPEN v_messages FOR
            WITH series AS MATERIALIZED (
              SELECT s.* FROM jsonb_to_recordset(v_read_series) AS s (role text, route text, "from" pg_snapshot, joins boolean)
            )
            SELECT n.*
              FROM (
                SELECT o.* FROM hawser.outbox AS o WHERE o.slot BETWEEN v_slot AND v_slot + 2 AND o.id >= v_first ORDER BY o.id OFFSET 0
              ) AS n
              LEFT JOIN LATERAL (
                SELECT r."from", r.joins FROM series AS r
                 WHERE r.role = n.role
                   AND (r.route IS NULL OR r.route = coalesce('domain ' || CASE WHEN n.to_stream THEN n.domain END, n.destination))
                 ORDER BY r.route NULLS LAST LIMIT 1
              ) AS s ON true
             WHERE coalesce(s.joins, true)
               AND pg_visible_in_snapshot(n.xid, v_to) AND NOT pg_visible_in_snapshot(n.xid, coalesce(s."from", v_read_from))
             LIMIT p_max_messages + 1;
        END IF;
      END IF;
    ELSE
      IF NOT v_is_nats THEN
        v_read_role := v_page ->> 'role';
        v_read_route := v_page ->> 'route';
        v_read_from := (v_page ->> 'from')::pg_snapshot;
        v_read_to := (v_page ->> 'to')::pg_snapshot;
        v_read_after := (v_page ->> 'after')::bigint;
      END IF;
      v_xmax := pg_snapshot_xmax(v_read_from);
      v_xip := ARRAY(SELECT pg_snapshot_xip(v_read_from));
      SELECT coalesce(array_agg(x.role) FILTER (WHERE x.route IS NULL), '{}'),
             coalesce(array_agg(x.role || E'\n' || x.route) FILTER (WHERE x.route IS NOT NULL), '{}')
        INTO v_excluded_roles, v_excluded_routes
        FROM jsonb_to_recordset(p_read_excluded) AS x (role text, route text);
      -- By ids: each page that sorted the whole set would cost as much as the first.
      IF v_is_nats THEN
        RETURN QUERY
          SELECT NULL::text, NULL::pg_snapshot, NULL::boolean, NULL::jsonb, NULL::integer, NULL::timestamptz, NULL::bigint, NULL::integer,
                 NULL::integer[], NULL::text[], NULL::text[], p.id, p.role, p.destination, CASE WHEN p.fits THEN p.payload END,
                 CASE WHEN p.fits THEN p.headers END, p.bytes, p.key,
                 coalesce(p.message_id, encode(substr(sha256(convert_to(v_secret || p.id || ' ' || extract(epoch FROM p.enqueued_at), 'UTF8')), 1, 16), 'hex')),
                 p.to_stream, p.domain, p.enqueued_at,
                 p.first_enqueued_at, p.copy_of, NULL::timestamptz
            FROM (
              SELECT f.*, m.bytes, (m.bytes > p_max_payload) IS NOT TRUE AS fits, row_number() OVER w AS nth,
                     sum(least(m.bytes, p_max_payload)) OVER w AS upto
                FROM (
                  SELECT n.*
                    FROM (
                      SELECT o.* FROM hawser.outbox AS o WHERE o.slot BETWEEN v_slot AND v_slot + 2 AND o.id > v_read_after ORDER BY o.id OFFSET 0
                    ) AS n
                   WHERE (n.role = v_read_role OR v_read_role IS NULL)
                     AND (n.xid >= v_xmax OR n.xid = ANY (v_xip)) AND pg_visible_in_snapshot(n.xid, v_read_to)
                     AND (v_read_route IS NULL OR v_read_route = coalesce('domain ' || CASE WHEN n.to_stream THEN n.domain END, n.destination))
                     AND n.role <> ALL (v_excluded_roles)
                     AND (v_excluded_routes = '{}'
                       OR n.role || E'\n' || coalesce('domain ' || CASE WHEN n.to_stream THEN n.domain END, n.destination) <> ALL (v_excluded_routes))
                   LIMIT p_max_messages
                ) AS f
               CROSS JOIN LATERAL (SELECT (octet_length(f.payload) + coalesce(octet_length(f.headers::text), 0))::bigint AS bytes) AS m
              WINDOW w AS (ORDER BY f.id)
            ) AS p
           WHERE p.nth = 1 OR p.upto <= p_max_bytes
           ORDER BY p.id;
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_is_taken := true;
        -- A full page may be the last one: the next one is empty then. So a full page costs no search for one more message.
        v_has_more := v_count = p_max_messages;
      END IF;
      IF NOT v_has_more THEN
        OPEN v_messages FOR
          SELECT n.*
            FROM (
              SELECT o.* FROM hawser.outbox AS o WHERE o.slot BETWEEN v_slot AND v_slot + 2 AND o.id > v_read_after ORDER BY o.id OFFSET 0
            ) AS n
           WHERE (n.role = v_read_role OR v_read_role IS NULL)
             AND (n.xid >= v_xmax OR n.xid = ANY (v_xip)) AND pg_visible_in_snapshot(n.xid, v_read_to)
             AND (v_read_route IS NULL OR v_read_route = coalesce('domain ' || CASE WHEN n.to_stream THEN n.domain END, n.destination))
             AND n.role <> ALL (v_excluded_roles)
             AND (v_excluded_routes = '{}'
               OR n.role || E'\n' || coalesce('domain ' || CASE WHEN n.to_stream THEN n.domain END, n.destination) <> ALL (v_excluded_routes))
           LIMIT p_max_messages + 1;
        IF v_is_taken THEN
          -- It has ended before it was full: by its bytes, or as there is no more.
          MOVE FORWARD v_count FROM v_messages;
          FETCH v_messages INTO v_message;
          v_has_more := FOUND;
          CLOSE v_messages;
        END IF;
      END IF;
    END IF;

    IF NOT v_is_taken THEN
      v_count := 0;
      v_bytes := 0;
      v_rows := 0;
      LOOP
        FETCH v_messages INTO v_message;
        EXIT WHEN NOT FOUND;
        bytes := octet_length(v_message.payload) + coalesce(octet_length(v_message.headers::text), 0);
        v_copies := 1;
        IF NOT v_is_nats AND v_message.to_all THEN
          v_copies := greatest(1, (SELECT count(*) FROM hawser.topic_addr AS a WHERE a.topic = v_message.destination));
        END IF;
        v_rows := v_rows + v_copies;
        v_bytes := v_bytes + v_copies * least(bytes, p_max_payload);
        v_has_more := v_count > 0 AND (v_count = p_max_messages OR v_rows > p_max_messages OR v_bytes > p_max_bytes);
        EXIT WHEN v_has_more;
        v_count := v_count + 1;
        v_after := v_message.id;
        IF v_is_nats THEN
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
          message_id := coalesce(v_message.message_id, encode(substr(sha256(convert_to(v_secret || v_message.id || ' ' || extract(epoch FROM v_message.enqueued_at), 'UTF8')), 1, 16), 'hex'));
          to_stream := v_message.to_stream;
          domain := v_message.domain;
          enqueued_at := v_message.enqueued_at;
          first_enqueued_at := v_message.first_enqueued_at;
          copy_of := v_message.copy_of;
          RETURN NEXT;
        ELSE
          v_ids := v_ids || v_message.id;
        END IF;
      END LOOP;
      CLOSE v_messages;
    END IF;

    IF v_read = 'look' AND (v_has_more OR v_later <> '{}') THEN
      -- Those who have more in it go on with pages of their own.
      rest := (
        SELECT jsonb_agg(jsonb_build_object(
                 'role', g.role, 'route', g.route, 'from', g."from", 'to', v_to,
                 'after', CASE WHEN g.role = ANY (v_later) THEN g.first - 1 ELSE v_after END
               ))
          FROM jsonb_to_recordset(v_groups) AS g (role text, route text, "from" pg_snapshot, first bigint, last bigint)
         WHERE g.role = ANY (v_later) OR (v_has_more AND g.last > v_after)
      );
    END IF;
    IF NOT v_is_nats THEN
      IF v_read = 'look' THEN
        v_from := v_to;
        v_series := coalesce(v_lagging - 0, '[]') || coalesce(rest, '[]');
      ELSE
        v_series := v_series || CASE
          WHEN v_has_more THEN jsonb_set(v_page, '{after}', to_jsonb(v_after))
          ELSE v_page || jsonb_build_object('from', v_page -> 'to', 'to', NULL)
        END;
      END IF;
    END IF;
  END LOOP;

  id := NULL;
  payload := NULL;
  headers := NULL;
  IF p_dead IS NOT NULL THEN
    INSERT INTO hawser.dead_letters (origin, source, topic, payload, headers, error_code, error_message, attempts, message_id, role)
    SELECT DISTINCT ON (o.role, o.destination, m.message_id, o.payload)
           'outbox', CASE WHEN o.to_stream THEN coalesce(o.domain, '') ELSE 'core' END, o.destination, o.payload, (
             SELECT jsonb_agg(jsonb_build_array(h.key, v.value))
               FROM jsonb_each(o.headers) AS h,
                    jsonb_array_elements(CASE jsonb_typeof(h.value) WHEN 'array' THEN h.value ELSE jsonb_build_array(h.value) END) AS v
           ), d.code, d.message, d.attempts, m.message_id, o.role
      FROM jsonb_to_recordset(p_dead) AS d (id bigint, code text, message text, attempts integer)
      JOIN hawser.outbox AS o ON o.id = d.id AND o.slot < @OutboxConstants.slots@
     CROSS JOIN LATERAL (
       SELECT coalesce(o.message_id, encode(substr(sha256(convert_to(v_secret || o.id || ' ' || extract(epoch FROM o.enqueued_at), 'UTF8')), 1, 16), 'hex')) AS message_id
     ) AS m
     -- What was written into the outbox again is one dead letter with the first one.
     -- Looked up singly: a join would read all dead letters that there are.
     WHERE (
       SELECT k.id FROM hawser.dead_letters AS k
        WHERE k.role = o.role AND k.message_id = m.message_id AND k.origin = 'outbox' AND k.topic = o.destination AND k.payload = o.payload
        LIMIT 1
     ) IS NULL
     ORDER BY o.role, o.destination, m.message_id, o.payload, o.id;
  END IF;
  handed := cardinality(v_ids);
  IF v_is_nats THEN
    IF v_count > 0 AND NOT v_saves THEN
      INSERT INTO hawser.outbox_turns (sink, turn, owner, pid, done_from, done_to, done_after, series, skipped, cluster)
      VALUES (v_sink, p_turn, p_owner, pg_backend_pid(), p_done_from, p_done_to, p_done_after, p_series, p_skipped, v_last.cluster);
      v_saves := true;
    END IF;
  ELSE
    IF p_adopts THEN
      SELECT a.connection_keys INTO connection_keys FROM hawser.adopt_waiting() AS a;
    END IF;
    v_saves := v_saves OR handed > 0 OR cardinality(connection_keys) > 0 OR v_series <> v_last.series;
    IF v_saves THEN
      -- Fails if another relay has had this turn meanwhile.
      INSERT INTO hawser.outbox_turns (sink, turn, owner, pid, done_from, done_to, done_after, series, epoch, cluster)
      VALUES (
        v_sink, v_last.turn + 1, p_owner, pg_backend_pid(), v_from, NULL, 0, v_series, v_last.epoch + 1, v_last.cluster
      );
    END IF;
    IF handed > 0 THEN
      v_adopted := connection_keys;
      SELECT v_adopted || ARRAY(SELECT k FROM unnest(s.connection_keys) AS k WHERE k <> ALL (coalesce(v_adopted, '{}'))), s.waiting
        INTO connection_keys, waiting
        FROM hawser.store_enqueued(v_ids, v_last.turn + 1, v_last.epoch + 1) AS s;
    END IF;
    owners := ARRAY(
      SELECT coalesce(m.owner, CASE WHEN starts_with(m.listener_name, @OutboxConstants.reserved_prefix@) THEN '' ELSE m.listener_name END)
        FROM unnest(connection_keys) WITH ORDINALITY AS u (key, nth)
        JOIN hawser.conn_key_map AS m ON m.connection_key = u.key
       ORDER BY u.nth
    );
    v_has_more := v_series <> '[]';
  END IF;
  -- The commit of what is saved puts everything on disk that was read, whatever the database's default is. The others need not
  -- wait for a disk.
  IF NOT v_saves THEN
    PERFORM set_config('synchronous_commit', 'off', true);
  ELSE
    PERFORM hawser.commit_durably();
  END IF;
  state := CASE WHEN v_saves THEN 'saved' ELSE 'read' END;
  bytes := NULL;
  brought := coalesce(v_due.brought, 0);
  due_from := least(v_due.due_from, v_found);
  due_in_ms := least(v_due.due_in_ms, ceil(extract(epoch FROM v_found - clock_timestamp()) * 1000));
  done_to := v_to;
  has_more := v_has_more;
  as_of := clock_timestamp();
  RETURN NEXT;
END
