#variable_conflict use_column
-- For the turns: opens a cursor over the messages, in the order of their ids. It has one more than p_max_messages, if
-- there are more.
DECLARE
  v_xmax xid8 := pg_snapshot_xmax(p_from);
  v_xip xid8[] := ARRAY(SELECT pg_snapshot_xip(p_from));
  -- Roles that have series of routes.
  v_routed text[];
  -- How many messages there are, the first and the last of their ids.
  v_new bigint;
  v_count bigint;
  v_first bigint;
  v_last_id bigint;
  v_messages refcursor;
BEGIN
  later := '{}';
  IF p_series = '[]' THEN
    SELECT count(*) FILTER (WHERE pg_visible_in_snapshot(n.xid, p_to)), count(*) INTO v_new, v_count
      FROM (
        SELECT o.xid FROM hawser_data.outbox AS o WHERE o.xid >= v_xmax
        UNION ALL
        SELECT o.xid FROM hawser_data.outbox AS o WHERE o.xid = ANY (v_xip)
        LIMIT p_max_messages + 1
      ) AS n;
    IF v_new = 0 AND v_count <= p_max_messages THEN
      RETURN;
    END IF;
  ELSE
    -- What a series has not seen is new to it, too.
    SELECT least(v_xmax, (array_agg(pg_snapshot_xmax(s."from") ORDER BY pg_snapshot_xmax(s."from")))[1]) INTO v_xmax
      FROM jsonb_to_recordset(p_series) AS s ("from" pg_snapshot, joins boolean) WHERE s.joins;
    v_xip := ARRAY(
      SELECT DISTINCT x.xid
        FROM (
          SELECT p_from AS seen UNION ALL
          SELECT s."from" FROM jsonb_to_recordset(p_series) AS s ("from" pg_snapshot, joins boolean) WHERE s.joins
        ) AS f, pg_snapshot_xip(f.seen) AS x (xid)
       WHERE x.xid < v_xmax
    );
  END IF;
  -- Who has how many: first by transactions, all messages of which are visible or none. Without sorting, which takes far longer
  -- where there are many.
  v_routed := ARRAY(SELECT DISTINCT s.role FROM jsonb_to_recordset(p_series) AS s (role text, route text) WHERE s.route IS NOT NULL);
  PERFORM set_config('enable_sort', 'off', true);
  WITH series AS MATERIALIZED (
    SELECT s.* FROM jsonb_to_recordset(p_series) AS s (role text, route text, "from" pg_snapshot, joins boolean)
  ), transactions AS MATERIALIZED (
    SELECT n.role, n.route, n.xid, count(*) AS count, min(n.id) AS first, max(n.id) AS last
      FROM (
        SELECT o.role, o.xid, o.id,
               CASE WHEN o.role = ANY (v_routed) THEN @route(o)@ END AS route
          FROM hawser_data.outbox AS o WHERE o.xid >= v_xmax
        UNION ALL
        SELECT o.role, o.xid, o.id,
               CASE WHEN o.role = ANY (v_routed) THEN @route(o)@ END
          FROM hawser_data.outbox AS o WHERE o.xid = ANY (v_xip)
        OFFSET 0
      ) AS n
     GROUP BY 1, 2, 3
  )
  SELECT coalesce(sum(g.count), 0), min(g.first), max(g.last),
         jsonb_agg(jsonb_build_object('role', g.role, 'route', g.route, 'from', g."from", 'first', g.first, 'last', g.last, 'count', g.count))
    INTO v_new, v_first, v_last_id, groups
    FROM (
      SELECT t.role, s.route, coalesce(s."from", p_from)::text AS "from", sum(t.count) AS count, min(t.first) AS first, max(t.last) AS last
        FROM transactions AS t
        LEFT JOIN series AS x ON x.role = t.role AND x.route = t.route
        LEFT JOIN series AS y ON y.role = t.role AND y.route IS NULL
       CROSS JOIN LATERAL (
         SELECT coalesce(x."from", y."from") AS "from", coalesce(x.joins, y.joins) AS joins, x.route
       ) AS s
       WHERE coalesce(s.joins, true)
         AND pg_visible_in_snapshot(t.xid, p_to) AND NOT pg_visible_in_snapshot(t.xid, coalesce(s."from", p_from))
       GROUP BY 1, 2, 3
    ) AS g;
  PERFORM set_config('enable_sort', 'on', true);
  IF v_new > p_max_messages THEN
    -- Roles with few messages do not wait for one that has more than fits. If none fits, the oldest messages come first.
    SELECT coalesce(CASE WHEN bool_or(f.count <= p_max_messages) THEN array_agg(f.role) FILTER (WHERE f.count > p_max_messages) END, '{}')
      INTO later
      FROM (
        SELECT c.role, sum(c.count) OVER (ORDER BY c.count, c.role) AS count
          FROM (
            SELECT g.role, sum(g.count) AS count FROM jsonb_to_recordset(groups) AS g (role text, count bigint) GROUP BY g.role
          ) AS c
      ) AS f;
  END IF;
  IF v_new <= p_max_messages OR later <> '{}' OR (v_new < 100000 AND v_last_id - v_first > 4 * v_new) THEN
    -- By xids: in the order of ids, much that is done could be passed.
    OPEN v_messages FOR
      WITH series AS MATERIALIZED (
        SELECT s.* FROM jsonb_to_recordset(p_series) AS s (role text, route text, "from" pg_snapshot, joins boolean)
      )
      SELECT n.*
        FROM (
          SELECT o.* FROM hawser_data.outbox AS o
           WHERE o.xid >= v_xmax AND o.role <> ALL (later)
          UNION ALL
          SELECT o.* FROM hawser_data.outbox AS o
           WHERE o.xid = ANY (v_xip) AND o.role <> ALL (later)
          OFFSET 0
        ) AS n
        LEFT JOIN series AS x
          ON x.role = n.role AND x.route = @route(n)@
        LEFT JOIN series AS y ON y.role = n.role AND y.route IS NULL
       CROSS JOIN LATERAL (SELECT coalesce(x."from", y."from") AS "from", coalesce(x.joins, y.joins) AS joins) AS s
       WHERE coalesce(s.joins, true)
         AND pg_visible_in_snapshot(n.xid, p_to) AND NOT pg_visible_in_snapshot(n.xid, coalesce(s."from", p_from))
       ORDER BY n.id LIMIT p_max_messages + 1;
  ELSE
    -- By ids: sorting the whole set would take longer.
    OPEN v_messages FOR
      WITH series AS MATERIALIZED (
        SELECT s.* FROM jsonb_to_recordset(p_series) AS s (role text, route text, "from" pg_snapshot, joins boolean)
      )
      SELECT n.*
        FROM (
          SELECT o.* FROM hawser_data.outbox AS o WHERE o.id >= v_first ORDER BY o.id OFFSET 0
        ) AS n
        LEFT JOIN LATERAL (
          SELECT r."from", r.joins FROM series AS r
           WHERE r.role = n.role
             AND (r.route IS NULL OR r.route = @route(n)@)
           ORDER BY r.route NULLS LAST LIMIT 1
        ) AS s ON true
       WHERE coalesce(s.joins, true)
         AND pg_visible_in_snapshot(n.xid, p_to) AND NOT pg_visible_in_snapshot(n.xid, coalesce(s."from", p_from))
       LIMIT p_max_messages + 1;
  END IF;
  messages := v_messages;
END
