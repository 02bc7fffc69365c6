#variable_conflict use_column
DECLARE
  v_me CONSTANT text := @OutboxConstants.peer_sender@;
  v_last hawser.peer_outbox_turns;
  v_turn bigint;
  v_xmax xid8;
  v_xip xid8[];
  v_to pg_snapshot;
  -- As in run_outbox_turn.
  v_new bigint;
  v_ids bigint[];
  v_count integer;
  v_topic text;
  v_topic_key integer;
  v_names text[];
  v_running text[];
  v_waiting record;
  v_due record;
  v_found timestamptz;
  -- The listeners that may get the messages of a topic, or have one for themselves, and their channels.
  v_to_topics text[] := '{}';
  v_to_names text[] := '{}';
  v_to_keys integer[] := '{}';
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'hawser.hand_over_enqueued needs READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'invalid_transaction_state';
  END IF;
  handed := 0;
  has_more := false;
  brought := 0;
  connection_keys := '{}';
  owners := '{}';
  SELECT t.* INTO STRICT v_last FROM hawser.peer_outbox_turns AS t ORDER BY t.turn DESC LIMIT 1;
  held := v_last.owner = p_owner;
  IF NOT held THEN
    RETURN;
  END IF;
  v_turn := v_last.turn + 1;

  SELECT b.brought, b.due_from, b.due_in_ms INTO v_due FROM hawser.bring_due('peer', p_due_from) AS b
   WHERE p_due_from IS NOT NULL;
  IF p_asleep IS NOT NULL THEN
    PERFORM setval('hawser.peer_outbox_state_asleep_seq', CASE WHEN p_asleep THEN 2 ELSE 1 END);
  END IF;
  -- What is new: as in run_outbox_turn.
  v_xmax := pg_snapshot_xmax(v_last.done_from);
  v_xip := ARRAY(SELECT pg_snapshot_xip(v_last.done_from));
  IF v_last.done_to IS NULL THEN
    SELECT pg_current_snapshot() INTO v_to;
    looked_to := v_to;
    SELECT l.due_from INTO v_found FROM hawser.least_due('peer', p_later_from) AS l;
    SELECT count(*) INTO v_new FROM (
      SELECT FROM hawser.peer_outbox AS o WHERE o.xid >= v_xmax
      UNION ALL
      SELECT FROM hawser.peer_outbox AS o WHERE o.xid = ANY (v_xip)
      LIMIT @OutboxConstants.sorted_messages@
    ) AS n;
  ELSE
    v_to := v_last.done_to;
  END IF;
  IF v_new < @OutboxConstants.sorted_messages@ THEN
    SELECT array_agg(p.id ORDER BY p.id) FILTER (WHERE p.nth <= p_max_messages AND (p.nth = 1 OR p.bytes <= p_max_bytes)), count(*)
      INTO v_ids, v_count
      FROM (
        SELECT n.id, row_number() OVER w AS nth, sum(n.length) OVER w AS bytes
          FROM (
            SELECT o.id, o.length
              FROM (
                SELECT s.id, s.xid, octet_length(s.payload) AS length FROM hawser.peer_outbox AS s WHERE s.xid >= v_xmax
                UNION ALL
                SELECT s.id, s.xid, octet_length(s.payload) FROM hawser.peer_outbox AS s WHERE s.xid = ANY (v_xip)
              ) AS o
             WHERE pg_visible_in_snapshot(o.xid, v_to)
             ORDER BY o.id LIMIT p_max_messages + 1
          ) AS n
        WINDOW w AS (ORDER BY n.id ROWS UNBOUNDED PRECEDING)
      ) AS p;
  ELSE
    SELECT array_agg(p.id ORDER BY p.id) FILTER (WHERE p.nth <= p_max_messages AND (p.nth = 1 OR p.bytes <= p_max_bytes)), count(*)
      INTO v_ids, v_count
      FROM (
        SELECT n.id, row_number() OVER w AS nth, sum(n.length) OVER w AS bytes
          FROM (
            SELECT s.id, octet_length(s.payload) AS length
              FROM (SELECT o.* FROM hawser.peer_outbox AS o WHERE o.id > v_last.done_after ORDER BY o.id OFFSET 0) AS s
             WHERE (s.xid >= v_xmax OR s.xid = ANY (v_xip)) AND pg_visible_in_snapshot(s.xid, v_to)
             LIMIT p_max_messages + 1
          ) AS n
        WINDOW w AS (ORDER BY n.id ROWS UNBOUNDED PRECEDING)
      ) AS p;
  END IF;
  handed := coalesce(cardinality(v_ids), 0);
  has_more := v_count > handed;
  brought := coalesce(v_due.brought, 0);
  due_from := least(v_due.due_from, v_found);
  due_in_ms := least(v_due.due_in_ms, ceil(extract(epoch FROM v_found - clock_timestamp()) * 1000));

  -- Topics that have a listener now: what waits there is its own, with all that is stored behind it.
  FOR v_waiting IN
    SELECT w.topic, w.connection_key FROM hawser.peer_waiting_topics AS w
     WHERE EXISTS (SELECT FROM hawser.topic_addr AS a WHERE a.topic = w.topic)
  LOOP
    v_names := ARRAY(
      SELECT DISTINCT a.client_name FROM hawser.topic_addr AS a WHERE a.topic = v_waiting.topic ORDER BY a.client_name
    );
    IF cardinality(v_names) > 1 THEN
      v_running := hawser.running_peers(v_names);
      IF cardinality(v_running) > 0 THEN
        v_names := v_running;
      END IF;
    END IF;
    UPDATE hawser.conn_key_map AS m SET owner = v_names[1]
     WHERE m.connection_key = v_waiting.connection_key AND m.owner IS NULL;
    DELETE FROM hawser.peer_waiting_topics AS w WHERE w.topic = v_waiting.topic;
    connection_keys := connection_keys || v_waiting.connection_key;
  END LOOP;

  IF handed + brought + cardinality(connection_keys) = 0 AND v_last.done_to IS NULL THEN
    RETURN;
  END IF;

  FOR v_topic IN SELECT DISTINCT o.topic FROM hawser.peer_outbox AS o WHERE o.id = ANY (v_ids) AND o.listener IS NULL LOOP
    v_topic_key := hawser.key_of_topic(v_topic);
    v_names := ARRAY(SELECT DISTINCT a.client_name FROM hawser.topic_addr AS a WHERE a.topic = v_topic ORDER BY a.client_name);
    IF cardinality(v_names) > 0 THEN
      -- As a sender does: what comes when they are away is stored for them.
      INSERT INTO hawser.sender_listener (sender_key, listener_topic, client_name, addr, max_message_bytes)
      SELECT v_me || ':' || v_me, v_topic, n.name, a.addr, a.max_message_bytes
        FROM unnest(v_names) AS n (name)
       CROSS JOIN LATERAL (
         SELECT b.addr, b.max_message_bytes FROM hawser.topic_addr AS b WHERE b.topic = v_topic AND b.client_name = n.name
          LIMIT 1 FOR KEY SHARE SKIP LOCKED
       ) AS a
       WHERE NOT EXISTS (
         SELECT FROM hawser.sender_listener AS k
          WHERE k.sender_key = v_me || ':' || v_me AND k.listener_topic = v_topic AND k.client_name = n.name
       )
      ON CONFLICT (sender_key, listener_topic, client_name) DO NOTHING;
    ELSE
      v_names := ARRAY(
        SELECT k.client_name FROM hawser.sender_listener AS k WHERE k.sender_key = v_me || ':' || v_me AND k.listener_topic = v_topic
      );
    END IF;
    IF cardinality(v_names) > 1 THEN
      v_running := hawser.running_peers(v_names);
      IF cardinality(v_running) > 0 THEN
        v_names := v_running;
      ELSE
        -- None of them can be reached: the one that was used last.
        v_names := ARRAY(
          SELECT n.name
            FROM unnest(v_names) AS n (name)
            LEFT JOIN hawser.conn_key_map AS m ON m.composite = v_me || ':' || v_me || ':' || n.name
            LEFT JOIN hawser.conn_mess_number AS c ON c.connection_key = m.connection_key
           ORDER BY greatest(c.epoch, (
                      SELECT s.epoch FROM hawser.conn_messages AS s WHERE s.connection_key = m.connection_key
                       ORDER BY s.epoch DESC LIMIT 1
                    ), 0) DESC, n.name
           LIMIT 1
        );
      END IF;
    END IF;
    IF cardinality(v_names) = 0 THEN
      -- Nobody has ever served it.
      SELECT w.connection_key INTO v_waiting FROM hawser.peer_waiting_topics AS w WHERE w.topic = v_topic;
      IF NOT FOUND THEN
        SELECT k.connection_key INTO v_waiting
          FROM hawser.connection_key(v_me, v_me, @OutboxConstants.waiting_prefix@ || v_topic_key || '#' || v_turn) AS k;
        INSERT INTO hawser.peer_waiting_topics (topic, connection_key) VALUES (v_topic, v_waiting.connection_key);
      END IF;
      v_to_topics := v_to_topics || v_topic;
      v_to_names := v_to_names || ''::text;
      v_to_keys := v_to_keys || v_waiting.connection_key;
    ELSE
      v_to_topics := v_to_topics || array_fill(v_topic, ARRAY[cardinality(v_names)]);
      v_to_names := v_to_names || v_names;
      v_to_keys := v_to_keys || ARRAY(
        SELECT k.connection_key
          FROM unnest(v_names) WITH ORDINALITY AS n (name, nth) CROSS JOIN LATERAL hawser.connection_key(v_me, v_me, n.name) AS k
         ORDER BY n.nth
      );
    END IF;
  END LOOP;
  FOR v_waiting IN
    SELECT l.listener, k.connection_key
      FROM (SELECT DISTINCT o.listener FROM hawser.peer_outbox AS o WHERE o.id = ANY (v_ids) AND o.listener IS NOT NULL) AS l
     CROSS JOIN LATERAL hawser.connection_key(v_me, v_me, l.listener) AS k
  LOOP
    v_to_topics := v_to_topics || NULL::text;
    v_to_names := v_to_names || v_waiting.listener;
    v_to_keys := v_to_keys || v_waiting.connection_key;
  END LOOP;
  PERFORM hawser.key_of_topic(o.topic)
     FROM (SELECT DISTINCT p.topic FROM hawser.peer_outbox AS p WHERE p.id = ANY (v_ids) AND p.listener IS NOT NULL) AS o;

  -- Each turn has its epoch, within which each channel's numbers begin at 1.
  WITH page AS MATERIALIZED (
    SELECT o.id, o.topic, o.payload, o.headers, o.listener, t.k AS topic_key,
           CASE WHEN o.listener IS NULL THEN hashtextextended(o.topic || ' ' || o.key, 0) END AS key_hash
      FROM hawser.peer_outbox AS o
      JOIN hawser.topic_key AS t ON t.topic = o.topic
     WHERE o.id = ANY (v_ids)
  ), listeners AS MATERIALIZED (
    SELECT u.topic, u.name, u.key, count(*) OVER (PARTITION BY u.topic) AS count,
           row_number() OVER (PARTITION BY u.topic ORDER BY u.nth) AS nth
      FROM unnest(v_to_topics, v_to_names, v_to_keys) WITH ORDINALITY AS u (topic, name, key, nth)
  ), turns AS MATERIALIZED (
    SELECT p.*, v_turn + row_number() OVER (PARTITION BY p.topic, p.key_hash IS NULL ORDER BY p.id) AS nth,
           row_number() OVER (PARTITION BY p.topic, p.key_hash ORDER BY p.id) = 1 AS is_first
      FROM page AS p
  ), chosen AS MATERIALIZED (
    SELECT p.*, CASE
             WHEN p.listener IS NOT NULL THEN (SELECT l.key FROM listeners AS l WHERE l.topic IS NULL AND l.name = p.listener)
             WHEN p.key_hash IS NULL THEN (SELECT l.key FROM listeners AS l WHERE l.topic = p.topic AND l.nth = p.nth % l.count + 1)
             -- Behind what waits for a listener with the same key, if anything does.
             WHEN p.is_first THEN coalesce(
               (
                 SELECT s.connection_key FROM hawser.conn_messages AS s
                  WHERE s.key_hash = p.key_hash AND s.topic_key = p.topic_key
                  ORDER BY s.epoch DESC LIMIT 1
               ),
               (
                 SELECT l.key FROM listeners AS l WHERE l.topic = p.topic
                  ORDER BY hashtextextended(l.name, p.key_hash) DESC LIMIT 1
               )
             )
           END AS connection_key
      FROM turns AS p
  ), routed AS (
    -- The others of a key follow its first one. By windows: a join of so many rows would need statistics.
    SELECT c.id, c.payload, c.headers, c.topic_key, c.key_hash,
           CASE
             WHEN c.key_hash IS NULL THEN c.connection_key
             ELSE max(c.connection_key) OVER (PARTITION BY c.topic, c.key_hash)
           END AS connection_key
      FROM chosen AS c
  ), stored AS (
    INSERT INTO hawser.conn_messages (connection_key, payload, epoch, number, topic_key, headers, key_hash)
    SELECT r.connection_key, r.payload, v_last.epoch + 1, row_number() OVER (PARTITION BY r.connection_key ORDER BY r.id), r.topic_key,
           r.headers, r.key_hash
      FROM routed AS r
     ORDER BY r.id
    RETURNING connection_key
  )
  SELECT connection_keys || coalesce(array_agg(DISTINCT s.connection_key), '{}') INTO connection_keys FROM stored AS s;

  -- Fails if another relay has had this turn meanwhile.
  INSERT INTO hawser.peer_outbox_turns (turn, owner, done_from, done_to, done_after, cluster, epoch)
  VALUES (
    v_turn, p_owner, CASE WHEN has_more THEN v_last.done_from ELSE v_to END, CASE WHEN has_more THEN v_to END,
    CASE WHEN has_more THEN v_ids[handed] ELSE 0 END, v_last.cluster, v_last.epoch + 1
  );
  owners := ARRAY(
    SELECT coalesce(m.owner, CASE WHEN starts_with(m.listener_name, @OutboxConstants.reserved_prefix@) THEN '' ELSE m.listener_name END)
      FROM unnest(connection_keys) WITH ORDINALITY AS u (key, nth)
      JOIN hawser.conn_key_map AS m ON m.connection_key = u.key
     ORDER BY u.nth
  );
END
