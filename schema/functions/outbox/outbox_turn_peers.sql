#variable_conflict use_column
-- In the order of its steps: whether the relay still works, what is due, what is read, and the hand-over. The database has the
-- position: the caller names no message.
DECLARE
  v_last hawser_data.outbox_turns;
  v_saves boolean := p_due_from IS NOT NULL;
  -- The series, as they were and as they will be, and the first that has more.
  v_joining jsonb;
  v_lagging jsonb;
  v_series jsonb := '[]';
  v_page jsonb;
  v_read text;
  v_from pg_snapshot;
  v_xip xid8[];
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
  -- As in outbox_turn_nats.
  v_groups jsonb;
  v_later text[] := '{}';
  v_due record;
  v_found timestamptz;
  v_beat_ms bigint;
  v_adopted integer[];
BEGIN
  SELECT t.* INTO STRICT v_last FROM hawser_data.outbox_turns AS t WHERE t.sink = 1 ORDER BY t.turn DESC LIMIT 1;
  IF p_owner = '' OR v_last.owner <> p_owner THEN
    state := 'lost';
    RETURN;
  END IF;
  -- It shows others that it is at work. Not each time: that writes to the log of Postgres.
  v_beat_ms := floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint;
  IF abs(v_beat_ms - coalesce(pg_sequence_last_value('hawser_data.outbox_state_peer_beat_seq'), 1)) >= @OutboxConstants.slow_poll_ms@ / 2 THEN
    PERFORM setval('hawser_data.outbox_state_peer_beat_seq', v_beat_ms);
  END IF;
  SELECT coalesce(jsonb_agg(s.position || jsonb_build_object('joins', s.position ->> 'to' IS NULL)), '[]'),
         jsonb_agg(s.position ORDER BY s.nth) FILTER (WHERE s.position ->> 'to' IS NOT NULL)
    INTO v_joining, v_lagging
    FROM jsonb_array_elements(v_last.series) WITH ORDINALITY AS s (position, nth);
  v_page := v_lagging -> 0;
  SELECT b.brought, b.due_from, b.due_in_ms INTO v_due FROM hawser.bring_due('peer', p_due_from) AS b WHERE p_due_from IS NOT NULL;
  IF p_asleep IS NOT NULL THEN
    PERFORM setval('hawser_data.outbox_state_peer_asleep_seq', CASE WHEN p_asleep THEN 2 ELSE 1 END);
  END IF;

  FOREACH v_read IN ARRAY CASE WHEN v_page IS NULL THEN ARRAY['poll'] ELSE ARRAY['poll', 'page'] END LOOP
    v_messages := NULL;
    v_count := 0;
    v_bytes := 0;
    v_rows := 0;
    v_after := 0;
    v_has_more := false;
    IF v_read = 'poll' THEN
      -- A statement of its own, behind the setval: of those who have not seen that, it sees or lists all.
      SELECT pg_current_snapshot() INTO done_to;
      IF p_later_from IS NULL THEN
        SELECT l.due_from INTO v_found FROM hawser.least_due('peer') AS l;
      ELSE
        SELECT min(l.deliver_at) INTO v_found FROM hawser_data.outbox_later AS l
         WHERE l.kind = 'peer'
           AND (l.xid >= pg_snapshot_xmax(p_later_from) OR l.xid = ANY (ARRAY(SELECT pg_snapshot_xip(p_later_from))));
      END IF;
      v_from := v_last.done_from;
      v_xip := ARRAY(SELECT pg_snapshot_xip(v_from));
      -- As in outbox_turn_nats.
      IF v_joining = '[]' THEN
        WITH new AS MATERIALIZED (
          SELECT o.id, o.xid, o.payload, o.headers, o.to_all FROM hawser_data.outbox AS o WHERE o.segment >= @OutboxConstants.segments@ AND o.xid >= pg_snapshot_xmax(v_from)
          UNION ALL
          SELECT o.id, o.xid, o.payload, o.headers, o.to_all FROM hawser_data.outbox AS o WHERE o.segment >= @OutboxConstants.segments@ AND o.xid = ANY (v_xip)
          LIMIT p_max_messages + 1
        ), visible AS MATERIALIZED (
          SELECT n.id, n.to_all, (octet_length(n.payload) + coalesce(octet_length(n.headers::text), 0))::bigint AS size
            FROM new AS n WHERE pg_visible_in_snapshot(n.xid, done_to)
        )
        SELECT v_ids || coalesce(array_agg(n.id ORDER BY n.id), '{}'), count(*) INTO v_ids, v_count
          FROM visible AS n
         WHERE (SELECT count(*) FROM new) <= p_max_messages
           AND (SELECT count(*) = 1 OR (sum(v.size) <= p_max_bytes AND NOT bool_or(v.to_all)) FROM visible AS v);
      END IF;
      IF v_count = 0 THEN
        SELECT l.groups, l.later, l.messages INTO v_groups, v_later, v_messages
          FROM hawser.outbox_poll(@OutboxConstants.segments@::smallint, v_from, done_to, v_joining, p_max_messages) AS l;
      END IF;
    ELSE
      v_from := (v_page ->> 'from')::pg_snapshot;
      v_xip := ARRAY(SELECT pg_snapshot_xip(v_from));
      -- By ids: each page that sorted the whole set would cost as much as the first.
      OPEN v_messages FOR
        SELECT n.*
          FROM (
            SELECT o.* FROM hawser_data.outbox AS o
             WHERE o.segment >= @OutboxConstants.segments@ AND o.id > (v_page ->> 'after')::bigint ORDER BY o.id OFFSET 0
          ) AS n
         WHERE n.role = v_page ->> 'role' AND (n.xid >= pg_snapshot_xmax(v_from) OR n.xid = ANY (v_xip))
           AND pg_visible_in_snapshot(n.xid, (v_page ->> 'to')::pg_snapshot)
         LIMIT p_max_messages + 1;
    END IF;
    WHILE v_messages IS NOT NULL LOOP
      FETCH v_messages INTO v_message;
      EXIT WHEN NOT FOUND;
      v_copies := 1;
      IF v_message.to_all THEN
        v_copies := greatest(1, (SELECT count(*) FROM hawser_data.listeners AS a WHERE a.topic = v_message.destination));
      END IF;
      v_rows := v_rows + v_copies;
      v_bytes := v_bytes + v_copies * (octet_length(v_message.payload) + coalesce(octet_length(v_message.headers::text), 0));
      v_has_more := v_count > 0 AND (v_count = p_max_messages OR v_rows > p_max_messages OR v_bytes > p_max_bytes);
      EXIT WHEN v_has_more;
      v_count := v_count + 1;
      v_after := v_message.id;
      v_ids := v_ids || v_message.id;
    END LOOP;
    IF v_read = 'poll' THEN
      -- Those who have more in it go on with pages of their own.
      v_series := coalesce(v_lagging - 0, '[]') || coalesce((
        SELECT jsonb_agg(jsonb_build_object(
                 'role', g.role, 'route', g.route, 'from', g."from", 'to', done_to,
                 'after', CASE WHEN g.role = ANY (v_later) THEN g.first - 1 ELSE v_after END
               ))
          FROM jsonb_to_recordset(v_groups) AS g (role text, route text, "from" pg_snapshot, first bigint, last bigint)
         WHERE g.role = ANY (v_later) OR (v_has_more AND g.last > v_after)
      ), '[]');
    ELSE
      v_series := v_series || CASE
        WHEN v_has_more THEN jsonb_set(v_page, '{after}', to_jsonb(v_after))
        ELSE v_page || jsonb_build_object('from', v_page -> 'to', 'to', NULL)
      END;
    END IF;
  END LOOP;

  handed := cardinality(v_ids);
  IF p_adopts THEN
    SELECT a.channel_ids INTO channel_ids FROM hawser.adopt_waiting() AS a;
  END IF;
  v_saves := v_saves OR handed > 0 OR cardinality(channel_ids) > 0 OR v_series <> v_last.series;
  IF v_saves THEN
    -- Fails if another relay has had this turn meanwhile.
    INSERT INTO hawser_data.outbox_turns (sink, turn, owner, pid, done_from, done_to, done_after, series, epoch, cluster)
    VALUES (
      1, v_last.turn + 1, p_owner, pg_backend_pid(), done_to, NULL, 0, v_series, v_last.epoch + 1, v_last.cluster
    );
  END IF;
  IF handed > 0 THEN
    v_adopted := channel_ids;
    SELECT v_adopted || ARRAY(SELECT k FROM unnest(s.channel_ids) AS k WHERE k <> ALL (coalesce(v_adopted, '{}'))), s.waiting
      INTO channel_ids, waiting
      FROM hawser.store_enqueued(v_ids, v_last.turn + 1, v_last.epoch + 1) AS s;
  END IF;
  owners := ARRAY(
    SELECT coalesce(m.owner, CASE WHEN starts_with(m.listener_name, @OutboxConstants.reserved_prefix@) THEN '' ELSE m.listener_name END)
      FROM unnest(channel_ids) WITH ORDINALITY AS u (key, nth)
      JOIN hawser_data.channels AS m ON m.channel_id = u.key
     ORDER BY u.nth
  );
  -- The commit of what is saved puts everything on disk that was read, whatever the database's default is. The others need not
  -- wait for a disk.
  IF NOT v_saves THEN
    PERFORM set_config('synchronous_commit', 'off', true);
  ELSE
    PERFORM hawser.commit_durably();
  END IF;
  state := CASE WHEN v_saves THEN 'saved' ELSE 'read' END;
  brought := coalesce(v_due.brought, 0);
  due_from := least(v_due.due_from, v_found);
  due_in_ms := least(v_due.due_in_ms, ceil(extract(epoch FROM v_found - clock_timestamp()) * 1000));
  has_more := v_series <> '[]';
END
