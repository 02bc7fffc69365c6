#variable_conflict use_column
-- By sets: what a turn does does not grow with the number of topics by more than their rows.
DECLARE
  v_me CONSTANT text := @OutboxConstants.peer_sender@;
  v_sender CONSTANT text := v_me || ':' || v_me;
  v_all_topics text[];
  v_wanted text[];
  v_listeners text[];
  -- Topics with messages for all, and who gets a copy of them: listeners, and groups.
  v_to_all text[];
  v_copied_topics text[];
  v_copied_names text[];
  v_copied_groups text[];
  v_missing text[];
  v_waiting text[];
  v_waiting_groups text[];
  v_running text[];
  v_groups text[];
  -- The listeners that may get the messages of a topic, and of a NULL topic those that have messages for themselves.
  v_topics text[];
  v_names text[];
  -- The least epoch in which anything is stored.
  v_stored_from bigint;
BEGIN
  SELECT array_agg(DISTINCT o.destination), array_agg(DISTINCT o.destination) FILTER (WHERE o.listener IS NULL AND NOT o.to_all),
         array_agg(DISTINCT o.listener) FILTER (WHERE o.listener IS NOT NULL),
         array_agg(DISTINCT o.destination) FILTER (WHERE o.listener IS NULL AND o.to_all)
    INTO v_all_topics, v_wanted, v_listeners, v_to_all
    FROM hawser_data.outbox AS o
   WHERE o.id = ANY (p_ids) AND o.segment >= @OutboxConstants.segments@;

  IF v_to_all IS NOT NULL THEN
    v_running := hawser.running_peers(ARRAY(
      SELECT DISTINCT a.listener_name FROM hawser_data.listeners AS a WHERE a.topic = ANY (v_to_all) AND NOT a.durable
    ));
    SELECT array_agg(c.topic), array_agg(c.name), array_agg(c.for_group)
      INTO v_copied_topics, v_copied_names, v_copied_groups
      FROM (
        SELECT DISTINCT a.topic, CASE WHEN p.group_name IS NULL THEN a.listener_name END AS name, p.group_name AS for_group
          FROM hawser_data.listeners AS a
          LEFT JOIN hawser_data.peers AS p ON p.name = a.listener_name
         WHERE a.topic = ANY (v_to_all) AND (p.group_name IS NOT NULL OR a.durable OR a.listener_name = ANY (v_running))
      ) AS c;
    -- A message that finds nobody waits for the first listener, as any other.
    v_wanted := ARRAY(
      SELECT w.topic FROM unnest(v_wanted) AS w (topic)
      UNION
      SELECT t.topic FROM unnest(v_to_all) AS t (topic) WHERE NOT t.topic = ANY (coalesce(v_copied_topics, '{}'))
    );
    v_listeners := ARRAY(
      SELECT l.name FROM unnest(v_listeners) AS l (name)
      UNION
      SELECT c.name FROM unnest(v_copied_names) AS c (name) WHERE c.name IS NOT NULL
    );
  END IF;

  -- The listeners of the directory, and what a sender remembers of them: what comes when they are away is stored for them.
  INSERT INTO hawser_data.routes (sender_key, listener_topic, listener_name, addr, max_message_bytes)
  SELECT v_sender, n.topic, n.listener_name, a.addr, a.max_message_bytes
    FROM (
      SELECT DISTINCT b.topic, b.listener_name
        FROM unnest(v_wanted) AS t (topic)
        JOIN hawser_data.listeners AS b ON b.topic = t.topic
       WHERE NOT EXISTS (
         SELECT FROM hawser_data.routes AS k
          WHERE k.sender_key = v_sender AND k.listener_topic = b.topic AND k.listener_name = b.listener_name
       )
    ) AS n
   CROSS JOIN LATERAL (
     SELECT b.addr, b.max_message_bytes FROM hawser_data.listeners AS b WHERE b.topic = n.topic AND b.listener_name = n.listener_name
      LIMIT 1 FOR KEY SHARE SKIP LOCKED
   ) AS a
  ON CONFLICT (sender_key, listener_topic, listener_name) DO NOTHING;
  WITH present AS MATERIALIZED (
    SELECT DISTINCT w.topic, a.listener_name FROM unnest(v_wanted) AS w (topic) JOIN hawser_data.listeners AS a ON a.topic = w.topic
  ), known AS (
    SELECT p.topic, p.listener_name FROM present AS p
    UNION ALL
    SELECT w.topic, k.listener_name
      FROM unnest(v_wanted) AS w (topic)
      JOIN hawser_data.routes AS k ON k.sender_key = v_sender AND k.listener_topic = w.topic
     WHERE NOT EXISTS (SELECT FROM present AS p WHERE p.topic = w.topic)
  )
  SELECT array_agg(w.topic ORDER BY w.topic, k.listener_name), array_agg(k.listener_name ORDER BY w.topic, k.listener_name)
    INTO v_topics, v_names
    FROM unnest(v_wanted) AS w (topic)
    LEFT JOIN known AS k ON k.topic = w.topic;

  -- The messages of a group belong to nobody until a member claims them.
  v_groups := ARRAY(
    SELECT u.topic
      FROM unnest(v_topics, v_names) AS u (topic, name)
      LEFT JOIN hawser_data.peers AS p ON p.name = u.name
     GROUP BY u.topic
    HAVING bool_and(p.group_name IS NOT NULL)
  );
  IF cardinality(v_groups) > 0 THEN
    SELECT array_agg(n.topic), array_agg(n.name) INTO v_topics, v_names
      FROM (
        SELECT DISTINCT u.topic, CASE WHEN u.topic <> ALL (v_groups) THEN u.name END AS name
          FROM unnest(v_topics, v_names) AS u (topic, name)
      ) AS n;
  END IF;

  -- Of several, those that run. If none does, the one that was used last.
  v_running := hawser.running_peers(ARRAY(
    SELECT DISTINCT n.name
      FROM (SELECT u.name, count(*) OVER (PARTITION BY u.topic) AS count FROM unnest(v_topics, v_names) AS u (topic, name)) AS n
     WHERE n.count > 1
  ));
  SELECT array_agg(n.topic), array_agg(n.name) INTO v_topics, v_names
    FROM (
      SELECT r.topic, r.name, r.count, r.runs, bool_or(r.runs) OVER (PARTITION BY r.topic) AS any_runs,
             row_number() OVER (PARTITION BY r.topic ORDER BY r.used DESC NULLS LAST, r.name) AS nth
        FROM (
          SELECT u.topic, u.name, u.name = ANY (v_running) AS runs, u.count, CASE
                   WHEN u.count > 1 AND NOT u.any_runs THEN (
                     SELECT coalesce((
                              SELECT s.epoch FROM hawser_data.stored_messages AS s
                               WHERE s.channel_id = m.channel_id AND (s.epoch, s.number) > (coalesce(c.epoch, 0), coalesce(c.number, 0))
                               ORDER BY s.epoch DESC LIMIT 1
                            ), c.epoch, 0)
                       FROM hawser_data.channels AS m
                       LEFT JOIN LATERAL (
                         SELECT n.epoch, n.number FROM hawser_data.cursors AS n WHERE n.channel_id = m.channel_id
                          ORDER BY n.channel_id DESC, n.epoch DESC, n.number DESC LIMIT 1
                       ) AS c ON true
                      WHERE m.channel_name = v_sender || ':' || u.name
                   )
                 END AS used
            FROM (
              SELECT a.topic, a.name, count(*) OVER w AS count, bool_or(a.name = ANY (v_running)) OVER w AS any_runs
                FROM unnest(v_topics, v_names) AS a (topic, name)
              WINDOW w AS (PARTITION BY a.topic)
            ) AS u
        ) AS r
    ) AS n
   WHERE n.count = 1 OR n.runs OR (NOT n.any_runs AND n.nth = 1);

  -- Keys of topics. The counter's row is the lock of all who make keys; the statement behind the wait sees what they have made.
  v_missing := ARRAY(
    SELECT t.topic FROM unnest(v_all_topics) AS t (topic)
     WHERE NOT EXISTS (SELECT FROM hawser_data.topics AS k WHERE k.topic = t.topic)
  );
  IF cardinality(v_missing) > 0 THEN
    PERFORM FROM hawser_data.id_counter AS s WHERE s.id = 1 FOR UPDATE;
    WITH new AS MATERIALIZED (
      SELECT m.topic, row_number() OVER (ORDER BY m.topic) AS nth, count(*) OVER () AS count
        FROM unnest(v_missing) AS m (topic)
       WHERE NOT EXISTS (SELECT FROM hawser_data.topics AS k WHERE k.topic = m.topic)
    ), counted AS (
      UPDATE hawser_data.id_counter AS s SET last_id = s.last_id + (SELECT count(*) FROM new) WHERE s.id = 1 RETURNING s.last_id
    )
    INSERT INTO hawser_data.topics (topic, id) SELECT n.topic, c.last_id - n.count + n.nth FROM new AS n, counted AS c;
  END IF;

  -- Groups, and topics that no listener has ever served: each has a channel without an owner, and each group one for its copies.
  SELECT array_agg(n.topic), array_agg(n.for_group) INTO v_waiting, v_waiting_groups
    FROM (
      SELECT u.topic, '' AS for_group FROM unnest(v_topics, v_names) AS u (topic, name) WHERE u.name IS NULL
      UNION ALL
      SELECT c.topic, c.for_group FROM unnest(v_copied_topics, v_copied_groups) AS c (topic, for_group) WHERE c.for_group IS NOT NULL
    ) AS n
   WHERE NOT EXISTS (SELECT FROM hawser_data.peer_waiting_topics AS w WHERE w.topic = n.topic AND w.for_group = n.for_group);
  IF cardinality(v_listeners) > 0 THEN
    v_topics := v_topics || array_fill(NULL::text, ARRAY[cardinality(v_listeners)]);
    v_names := v_names || v_listeners;
  END IF;
  v_missing := ARRAY(
    SELECT c.channel_name
      FROM (
        SELECT v_sender || ':' || u.name AS channel_name FROM unnest(v_names) AS u (name) WHERE u.name IS NOT NULL
        UNION
        SELECT v_sender || ':' || @OutboxConstants.waiting_prefix@ || concat_ws('#', k.id, p_turn, nullif(w.for_group, ''))
          FROM unnest(v_waiting, v_waiting_groups) AS w (topic, for_group) JOIN hawser_data.topics AS k ON k.topic = w.topic
      ) AS c
     WHERE NOT EXISTS (SELECT FROM hawser_data.channels AS m WHERE m.channel_name = c.channel_name)
  );
  IF cardinality(v_missing) > 0 THEN
    PERFORM FROM hawser_data.id_counter AS s WHERE s.id = 1 FOR UPDATE;
    WITH new AS MATERIALIZED (
      SELECT m.channel_name, row_number() OVER (ORDER BY m.channel_name) AS nth, count(*) OVER () AS count
        FROM unnest(v_missing) AS m (channel_name)
       WHERE NOT EXISTS (SELECT FROM hawser_data.channels AS k WHERE k.channel_name = m.channel_name)
    ), counted AS (
      UPDATE hawser_data.id_counter AS s SET last_id = s.last_id + (SELECT count(*) FROM new) WHERE s.id = 1 RETURNING s.last_id
    )
    INSERT INTO hawser_data.channels (channel_name, channel_id)
    SELECT n.channel_name, c.last_id - n.count + n.nth FROM new AS n, counted AS c;
  END IF;
  INSERT INTO hawser_data.peer_waiting_topics (topic, channel_id, for_group)
  SELECT k.topic, m.channel_id, w.for_group
    FROM unnest(v_waiting, v_waiting_groups) AS w (topic, for_group)
    JOIN hawser_data.topics AS k ON k.topic = w.topic
    JOIN hawser_data.channels AS m
      ON m.channel_name = v_sender || ':' || @OutboxConstants.waiting_prefix@ || concat_ws('#', k.id, p_turn, nullif(w.for_group, ''));

  IF EXISTS (
    SELECT FROM hawser_data.outbox AS o WHERE o.id = ANY (p_ids) AND o.segment >= @OutboxConstants.segments@ AND o.key IS NOT NULL
  ) THEN
    -- What is before it stays in the index of keys until a vacuum: all that each key has ever had. Of each channel the first row
    -- behind its cursor, as in channels_with_messages.
    SELECT min(f.epoch) INTO v_stored_from
      FROM hawser_data.channels AS m
      LEFT JOIN LATERAL (
        SELECT n.epoch, n.number FROM hawser_data.cursors AS n WHERE n.channel_id = m.channel_id
         ORDER BY n.channel_id DESC, n.epoch DESC, n.number DESC LIMIT 1
      ) AS c ON true
     CROSS JOIN LATERAL (
       SELECT s.epoch
         FROM hawser_data.stored_messages AS s
        WHERE s.channel_id = m.channel_id AND (s.epoch, s.number) > (coalesce(c.epoch, 0), coalesce(c.number, 0))
        ORDER BY s.channel_id, s.epoch, s.number
        LIMIT 1
     ) AS f
     WHERE m.sender_name = v_me AND m.source_topic = ANY (ARRAY[v_me, @OutboxConstants.claims_topic@]);
  END IF;

  -- Each turn has its epoch, within which each channel's numbers begin at 1.
  WITH given AS MATERIALIZED (
    SELECT o.id, o.destination AS topic, o.payload, o.key, o.listener, t.id AS topic_id,
           o.to_all AND o.listener IS NULL AND o.destination = ANY (coalesce(v_copied_topics, '{}')) AS is_copied,
           @headers_of(o)@ AS headers
      FROM hawser_data.outbox AS o
      JOIN hawser_data.topics AS t ON t.topic = o.destination
     WHERE o.id = ANY (p_ids) AND o.segment >= @OutboxConstants.segments@
  ), page AS MATERIALIZED (
    SELECT g.id, g.topic, g.payload, g.headers, g.listener, g.topic_id,
           CASE WHEN g.listener IS NULL THEN hashtextextended(g.topic || ' ' || g.key, 0) END AS key_hash
      FROM given AS g WHERE NOT g.is_copied
  ), copies AS MATERIALIZED (
    -- Their keys are no others' keys: what is enqueued for one listener does not follow a copy, and groups do not wait for each other.
    SELECT g.id, g.payload, g.headers, g.topic_id, coalesce(m.channel_id, w.channel_id) AS channel_id,
           hashtextextended(g.topic || ' ' || g.key, hashtextextended(c.for_group, 1)) AS key_hash
      FROM unnest(v_copied_topics, v_copied_names, v_copied_groups) AS c (topic, name, for_group)
      LEFT JOIN hawser_data.channels AS m ON m.channel_name = v_sender || ':' || c.name
      LEFT JOIN hawser_data.peer_waiting_topics AS w ON w.topic = c.topic AND w.for_group = c.for_group
      JOIN given AS g ON g.topic = c.topic AND g.is_copied
  ), listeners AS MATERIALIZED (
    SELECT u.topic, u.name, coalesce(m.channel_id, w.channel_id) AS key, count(*) OVER (PARTITION BY u.topic) AS count,
           row_number() OVER (PARTITION BY u.topic ORDER BY u.name) AS nth
      FROM unnest(v_topics, v_names) AS u (topic, name)
      LEFT JOIN hawser_data.channels AS m ON m.channel_name = v_sender || ':' || u.name
      LEFT JOIN hawser_data.peer_waiting_topics AS w ON u.name IS NULL AND w.topic = u.topic AND w.for_group = ''
  ), turns AS MATERIALIZED (
    SELECT p.*, p_turn + row_number() OVER (PARTITION BY p.topic, p.key_hash IS NULL ORDER BY p.id) AS nth,
           row_number() OVER (PARTITION BY p.topic, p.key_hash ORDER BY p.id) = 1 AS is_first
      FROM page AS p
  ), chosen AS MATERIALIZED (
    SELECT p.*, l.key AS next_key, CASE
             WHEN p.listener IS NOT NULL THEN (SELECT k.key FROM listeners AS k WHERE k.topic IS NULL AND k.name = p.listener)
             -- Behind what waits for a listener with the same key, if anything does.
             WHEN p.key_hash IS NOT NULL AND p.is_first THEN coalesce(
               (
                 SELECT CASE
                           -- What a member has claimed is followed by what it claims next.
                           WHEN m.source_topic = @OutboxConstants.claims_topic@ THEN
                             (SELECT w.channel_id FROM hawser_data.peer_waiting_topics AS w WHERE w.topic = p.topic AND w.for_group = '')
                           ELSE s.channel_id
                         END
                    FROM (
                      (
                        SELECT r.channel_id, r.epoch FROM hawser_data.stored_messages AS r
                         WHERE r.key_hash = p.key_hash AND r.topic_id = p.topic_id AND r.epoch >= v_stored_from
                         ORDER BY r.epoch DESC LIMIT 1
                      )
                      UNION ALL
                      (
                        SELECT r.channel_id, r.epoch FROM hawser_data.parked_messages AS r
                         WHERE r.key_hash = p.key_hash AND r.topic_id = p.topic_id LIMIT 1
                      )
                    ) AS s
                    JOIN hawser_data.channels AS m ON m.channel_id = s.channel_id
                   ORDER BY s.epoch DESC LIMIT 1
               ),
               (
                 SELECT k.key FROM listeners AS k WHERE k.topic = p.topic
                  ORDER BY hashtextextended(coalesce(k.name, ''), p.key_hash) DESC LIMIT 1
               )
             )
           END AS channel_id
      FROM turns AS p
      LEFT JOIN listeners AS l ON l.topic = p.topic AND l.nth = p.nth % l.count + 1
  ), routed AS (
    -- The others of a key follow its first one. By windows: a join of so many rows would need statistics.
    SELECT c.id, c.payload, c.headers, c.topic_id, c.key_hash,
           CASE
             WHEN c.listener IS NOT NULL THEN c.channel_id
             WHEN c.key_hash IS NULL THEN c.next_key
             ELSE max(c.channel_id) OVER (PARTITION BY c.topic, c.key_hash)
           END AS channel_id
      FROM chosen AS c
     UNION ALL
    SELECT c.id, c.payload, c.headers, c.topic_id, c.key_hash, c.channel_id FROM copies AS c
  ), stored AS (
    INSERT INTO hawser_data.stored_messages (channel_id, payload, epoch, number, topic_id, headers, key_hash)
    SELECT r.channel_id, r.payload, p_epoch, row_number() OVER (PARTITION BY r.channel_id ORDER BY r.id), r.topic_id,
           r.headers, r.key_hash
      FROM routed AS r
     ORDER BY r.id
    RETURNING channel_id
  )
  SELECT coalesce(array_agg(DISTINCT s.channel_id), '{}') INTO channel_ids FROM stored AS s;
  waiting := ARRAY(
    SELECT DISTINCT w.topic FROM hawser_data.peer_waiting_topics AS w
     WHERE w.topic = ANY (v_all_topics) AND w.channel_id = ANY (channel_ids)
       AND EXISTS (SELECT FROM hawser_data.listeners AS a WHERE a.topic = w.topic)
  );
END
