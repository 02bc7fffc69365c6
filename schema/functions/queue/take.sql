#variable_conflict use_column
-- A row is free if its worker is not there or is gone. Each statement that asks so also reads the workers, of the same moment, and what
-- it has found is locked only if its worker is still the same: an id is never used again, so that a row which another one has taken
-- meanwhile is left.
DECLARE
  -- One value, as an index is searched for it.
  v_now CONSTANT timestamptz := clock_timestamp();
  v_worker hawser_data.workers;
  v_asked text[];
  v_limited text[] := '{}';
  -- Times for which topics keep results, by topic. NULL: none of them does.
  v_keep_ms jsonb;
  -- The topic, if it has limits and is the only one.
  v_topic text;
  v_admitted record;
  v_most integer;
  v_rows integer;
  v_wait_ms integer := 0;
  v_places text[];
  v_has_keys boolean;
  v_has_copies boolean;
  v_has_gone boolean := false;
  v_tids tid[];
  v_ids bigint[];
  v_workers bigint[];
  -- How far this has looked, by topic, recipient and role.
  v_topics text[];
  v_recipients text[];
  v_roles text[];
  v_upto bigint[];
  -- Who gets a copy of a message for all, by topic, and the rows that become their copies.
  v_copied_topics text[];
  v_copied_recipients text[];
  v_spread tid[] := '{}';
  v_suspects bigint[] := '{}';
  v_done boolean;
BEGIN
  -- From here on a session that stands still holds up others.
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  SELECT w.* INTO v_worker FROM hawser_data.workers AS w WHERE w.id = p_worker AND w.gone_at IS NULL;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('lease_lost'),
      MESSAGE = format('the worker %s has ended', p_worker),
      HINT = 'Begin a new one with hawser.open_worker, and forget what this one had.';
  END IF;
  v_asked := CASE p_topics WHEN '{}' THEN v_worker.topics ELSE p_topics END;
  IF EXISTS (SELECT FROM hawser_data.topic_settings AS s WHERE s.topic = ANY (v_asked)) THEN
    -- Nothing is taken of a paused topic, and of one with limits only if no other one is asked for: taking is starting.
    SELECT coalesce(array_agg(s.topic) FILTER (WHERE s.paused_at IS NULL AND num_nonnulls(s.rate, s.running, s.running_per_key) > 0), '{}'),
           jsonb_object_agg(s.topic, s.keep_ms) FILTER (WHERE s.keep_ms IS NOT NULL)
      INTO v_limited, v_keep_ms FROM hawser_data.topic_settings AS s WHERE s.topic = ANY (v_asked);
    v_asked := ARRAY(
      SELECT t.topic FROM unnest(v_asked) AS t (topic) WHERE NOT EXISTS (SELECT FROM hawser_data.topic_settings AS s WHERE s.topic = t.topic AND (s.paused_at IS NOT NULL OR s.topic = ANY (v_limited)))
    );
    IF v_asked = '{}' AND cardinality(v_limited) = 1 THEN
      v_topic := v_limited[1];
      SELECT a.* INTO v_admitted FROM hawser.admit_starts(v_topic) AS a;
      v_most := least(p_most, v_admitted.most);
      -- Some are looked at that may not start, and passed: the rest of their key has to wait.
      v_rows := greatest(v_most, CASE WHEN v_admitted.per_key > 0 THEN 500 ELSE 100 END);
    END IF;
  END IF;
  v_places := array_remove(ARRAY['', '@' || v_worker.name, '#' || v_worker.group_name], NULL)
    || ARRAY(SELECT '@' || n.name FROM unnest(v_worker.stands_in_for) AS n (name));
  v_places := v_places || ARRAY(SELECT @QueueConstants.priority_mark@ || p.recipient FROM unnest(v_places) AS p (recipient));

  -- The first rows of each place and role, and those that are due again. Each role gets an equal part, however many messages others
  -- have; a priority orders those of one role alone. This looks at messages with a priority from the first one on, since a new one may
  -- come before those that it has seen. The roles of
  -- a place are found one behind the other in the index; what a role has had before a known position may be dead there by thousands.
  WITH RECURSIVE sources AS (
    SELECT t.topic, r.recipient, '' AS role, CASE jsonb_typeof(p_after -> t.topic -> r.recipient) WHEN 'object' THEN p_after -> t.topic -> r.recipient ELSE '{}' END AS known
      FROM unnest(v_asked) AS t (topic) CROSS JOIN unnest(v_places) AS r (recipient)
    UNION ALL
    SELECT s.topic, s.recipient, n.role, s.known
      FROM sources AS s
     CROSS JOIN LATERAL (SELECT min(o.role) AS role FROM jsonb_object_keys(s.known) AS o (role) WHERE o.role > s.role) AS k
     CROSS JOIN LATERAL (
       SELECT coalesce(CASE
                WHEN k.role IS NULL THEN (
                  SELECT q.role FROM hawser_data.queue AS q
                   WHERE q.topic = s.topic AND q.recipient = s.recipient AND q.role > s.role ORDER BY q.role LIMIT 1
                )
                ELSE (
                  SELECT q.role FROM hawser_data.queue AS q
                   WHERE q.topic = s.topic AND q.recipient = s.recipient AND q.role > s.role AND q.role < k.role ORDER BY q.role LIMIT 1
                )
              END, k.role) AS role
     ) AS n
     WHERE n.role IS NOT NULL
  ), parts AS MATERIALIZED (
    SELECT s.topic, s.recipient, s.role, coalesce((s.known ->> s.role)::bigint, -9223372036854775808) AS after, least(p_most, 2 * p_most / count(*) OVER () + 1) AS most
      FROM sources AS s WHERE s.role <> ''
  ), found AS MATERIALIZED (
    SELECT p.topic, p.recipient, p.role, f.*, random() AS lot
      FROM parts AS p
     CROSS JOIN LATERAL (
       (
         SELECT q.ctid AS tid, q.id, q.key, q.worker, q.to_all, octet_length(q.payload)::bigint AS bytes, q.due_at
           FROM hawser_data.queue AS q
          WHERE NOT starts_with(p.recipient, @QueueConstants.priority_mark@)
            AND q.topic = p.topic AND q.recipient = p.recipient AND q.role = p.role AND q.id > p.after AND q.due_at IS NULL
            AND (q.worker IS NULL OR NOT EXISTS (SELECT FROM hawser_data.workers AS w WHERE w.id = q.worker AND w.gone_at IS NULL))
          ORDER BY q.id LIMIT p.most
       )
       UNION ALL
       (
         -- The index by due time has all messages with a priority, so that those that are put off are not read each time.
         SELECT q.ctid, q.id, q.key, q.worker, q.to_all, octet_length(q.payload), q.due_at
           FROM hawser_data.queue AS q
          WHERE starts_with(p.recipient, @QueueConstants.priority_mark@) AND starts_with(q.recipient, @QueueConstants.priority_mark@)
            AND q.topic = p.topic AND q.recipient = p.recipient AND q.role = p.role AND q.due_at IS NULL
            AND (q.worker IS NULL OR NOT EXISTS (SELECT FROM hawser_data.workers AS w WHERE w.id = q.worker AND w.gone_at IS NULL))
          ORDER BY q.due_at, q.id LIMIT p.most
       )
       UNION ALL
       (
         SELECT q.ctid, q.id, q.key, q.worker, q.to_all, octet_length(q.payload), q.due_at
           FROM hawser_data.queue AS q
          WHERE q.topic = p.topic AND q.recipient = p.recipient AND q.role = p.role AND q.due_at <= v_now
            AND (q.worker IS NULL OR NOT EXISTS (SELECT FROM hawser_data.workers AS w WHERE w.id = q.worker AND w.gone_at IS NULL))
            -- No worker passes these by their ids, so that those of a key that another one has would hide what is due behind them.
            AND (q.key IS NULL OR NOT EXISTS (
              SELECT FROM (
                SELECT h.worker FROM hawser_data.queue AS h
                 WHERE h.topic = q.topic AND h.recipient = q.recipient AND h.key = q.key AND h.role = q.role ORDER BY h.id LIMIT 1
              ) AS h
                JOIN hawser_data.workers AS w ON w.id = h.worker
               WHERE w.id <> p_worker AND w.gone_at IS NULL
            ))
          ORDER BY q.due_at, q.id LIMIT p.most
       )
     ) AS f
  ), chosen AS MATERIALIZED (
    SELECT n.*
      FROM (
        SELECT r.*, row_number() OVER w AS place, sum(r.bytes) OVER w AS upto
          FROM (
            SELECT f.*, row_number() OVER (PARTITION BY f.topic, ltrim(f.recipient, @QueueConstants.priority_mark@), f.role, f.due_at IS NULL ORDER BY f.id >> @QueueConstants.id_bits@, f.due_at, f.id) AS nth
              FROM found AS f
          ) AS r
        WINDOW w AS (ORDER BY r.nth, r.lot ROWS UNBOUNDED PRECEDING)
      ) AS n
     WHERE n.place = 1 OR (n.place <= p_most AND n.upto <= p_max_bytes)
  ), looked AS (
    SELECT c.topic, c.recipient, c.role, max(c.id) AS upto FROM chosen AS c WHERE c.due_at IS NULL AND NOT starts_with(c.recipient, @QueueConstants.priority_mark@) GROUP BY 1, 2, 3
  )
  SELECT c.*, l.* INTO v_tids, v_ids, v_workers, v_has_keys, v_has_copies, v_topics, v_recipients, v_roles, v_upto
    FROM (
      SELECT array_agg(c.tid), array_agg(c.id), array_agg(c.worker), bool_or(c.key IS NOT NULL), bool_or(c.to_all AND c.recipient IN ('', @QueueConstants.priority_mark@)) FROM chosen AS c
    ) AS c, (
      SELECT array_agg(l.topic), array_agg(l.recipient), array_agg(l.role), array_agg(l.upto) FROM looked AS l
    ) AS l;
  IF v_topic IS NOT NULL THEN
    -- Of a topic with limits: those that may start at once, in the same order. Of a key the first one, if nobody has another one of it.
    WITH RECURSIVE sources AS (
      SELECT r.recipient, '' AS role, p_after -> v_topic -> r.recipient AS known FROM unnest(v_places) AS r (recipient) WHERE v_most > 0
      UNION ALL
      SELECT s.recipient, n.role, s.known
        FROM sources AS s
       CROSS JOIN LATERAL (
         SELECT q.role FROM hawser_data.queue AS q
          WHERE q.topic = v_topic AND q.recipient = s.recipient AND q.role > s.role ORDER BY q.role LIMIT 1
       ) AS n
    ), started AS MATERIALIZED (
      SELECT q.recipient, q.key, CASE WHEN v_admitted.per_key > 0 THEN hawser.limit_key(q.key, q.headers, v_admitted.key_header) END AS limit_key
        FROM hawser_data.topic_starts AS s JOIN hawser_data.queue AS q USING (topic, recipient, role, id) WHERE s.topic = v_topic
    ), found AS MATERIALIZED (
      SELECT s.recipient, s.role, f.*, random() AS lot
        FROM sources AS s
       CROSS JOIN LATERAL (
         (
           SELECT q.ctid AS tid, q.id, q.key, q.worker, q.to_all, octet_length(q.payload)::bigint AS bytes, q.due_at,
                  CASE WHEN v_admitted.per_key > 0 THEN hawser.limit_key(q.key, q.headers, v_admitted.key_header) END AS limit_key
             FROM hawser_data.queue AS q
            WHERE NOT starts_with(s.recipient, @QueueConstants.priority_mark@)
              AND q.topic = v_topic AND q.recipient = s.recipient AND q.role = s.role AND q.due_at IS NULL
              AND q.id > coalesce(CASE jsonb_typeof(s.known) WHEN 'object' THEN (s.known ->> s.role)::bigint END, -9223372036854775808)
              AND (q.worker IS NULL OR NOT EXISTS (SELECT FROM hawser_data.workers AS w WHERE w.id = q.worker AND w.gone_at IS NULL))
            ORDER BY q.id LIMIT v_rows
         )
         UNION ALL
         (
           SELECT q.ctid, q.id, q.key, q.worker, q.to_all, octet_length(q.payload), q.due_at,
                  CASE WHEN v_admitted.per_key > 0 THEN hawser.limit_key(q.key, q.headers, v_admitted.key_header) END
             FROM hawser_data.queue AS q
            WHERE starts_with(s.recipient, @QueueConstants.priority_mark@) AND starts_with(q.recipient, @QueueConstants.priority_mark@)
              AND q.topic = v_topic AND q.recipient = s.recipient AND q.role = s.role AND q.due_at IS NULL
              AND (q.worker IS NULL OR NOT EXISTS (SELECT FROM hawser_data.workers AS w WHERE w.id = q.worker AND w.gone_at IS NULL))
            ORDER BY q.due_at, q.id LIMIT v_rows
         )
         UNION ALL
         (
           SELECT q.ctid, q.id, q.key, q.worker, q.to_all, octet_length(q.payload), q.due_at,
                  CASE WHEN v_admitted.per_key > 0 THEN hawser.limit_key(q.key, q.headers, v_admitted.key_header) END
             FROM hawser_data.queue AS q
            WHERE q.topic = v_topic AND q.recipient = s.recipient AND q.role = s.role AND q.due_at <= v_now
              AND (q.worker IS NULL OR NOT EXISTS (SELECT FROM hawser_data.workers AS w WHERE w.id = q.worker AND w.gone_at IS NULL))
            ORDER BY q.due_at, q.id LIMIT v_rows
         )
       ) AS f
       WHERE s.role <> ''
    ), first AS MATERIALIZED (
      SELECT f.*, row_number() OVER (PARTITION BY f.recipient, f.key ORDER BY f.id) AS of_key,
             row_number() OVER (PARTITION BY f.limit_key ORDER BY f.id >> @QueueConstants.id_bits@, f.due_at, f.id) AS of_limit_key
        FROM found AS f
       WHERE f.key IS NULL OR (
         NOT EXISTS (SELECT FROM started AS s WHERE s.recipient = f.recipient AND s.key = f.key)
         AND f.id = (
           SELECT h.id FROM hawser_data.queue AS h
            WHERE h.topic = v_topic AND h.recipient = f.recipient AND h.key = f.key AND h.role = f.role ORDER BY h.id LIMIT 1
         )
       )
    ), allowed AS MATERIALIZED (
      SELECT f.*, row_number() OVER (
               PARTITION BY ltrim(f.recipient, @QueueConstants.priority_mark@), f.role, f.due_at IS NULL ORDER BY f.id >> @QueueConstants.id_bits@, f.due_at, f.id
             ) AS nth
        FROM first AS f
       WHERE (f.key IS NULL OR f.of_key = 1)
         AND (f.limit_key IS NULL OR f.of_limit_key + (SELECT count(*) FROM started AS s WHERE s.limit_key = f.limit_key) <= v_admitted.per_key)
    ), chosen AS MATERIALIZED (
      SELECT n.*
        FROM (
          SELECT a.*, row_number() OVER w AS place, sum(a.bytes) OVER w AS upto FROM allowed AS a
          WINDOW w AS (ORDER BY a.nth, a.lot ROWS UNBOUNDED PRECEDING)
        ) AS n
       WHERE n.place = 1 OR (n.place <= v_most AND n.upto <= p_max_bytes)
    ), looked AS (
      -- Up to the first one that is left and might start, or all that was found.
      SELECT f.recipient, f.role, coalesce(min(a.id) FILTER (WHERE c.tid IS NULL) - 1, max(f.id)) AS upto
        FROM found AS f LEFT JOIN allowed AS a ON a.tid = f.tid LEFT JOIN chosen AS c ON c.tid = f.tid
       WHERE f.due_at IS NULL AND NOT starts_with(f.recipient, @QueueConstants.priority_mark@)
       GROUP BY 1, 2
    )
    SELECT c.*, l.* INTO v_tids, v_ids, v_workers, v_has_keys, v_has_copies, v_topics, v_recipients, v_roles, v_upto
      FROM (
        SELECT array_agg(c.tid), array_agg(c.id), array_agg(c.worker), bool_or(c.key IS NOT NULL), bool_or(c.to_all AND c.recipient IN ('', @QueueConstants.priority_mark@)) FROM chosen AS c
      ) AS c, (
        SELECT array_agg(v_topic), array_agg(l.recipient), array_agg(l.role), array_agg(l.upto) FROM looked AS l
      ) AS l;
  END IF;
  IF v_tids IS NULL AND v_limited = '{}' THEN
    RETURN;
  END IF;

  -- Who else counts what a worker had that is gone, is waited for here, before anything is locked or looked up.
  IF num_nonnulls(VARIADIC v_workers) > 0 THEN
    PERFORM FROM hawser_data.workers AS w WHERE w.id = ANY (v_workers) AND w.gone_at IS NOT NULL ORDER BY w.id FOR UPDATE;
    v_has_gone := FOUND;
  END IF;
  v_tids := ARRAY(
    SELECT f.tid
      FROM unnest(v_tids, v_ids, v_workers) AS f (tid, id, worker)
     CROSS JOIN LATERAL (
       SELECT FROM hawser_data.queue AS q WHERE q.ctid = f.tid AND q.id = f.id AND q.worker IS NOT DISTINCT FROM f.worker FOR UPDATE SKIP LOCKED
     ) AS q
  );
  -- A message for all: who takes it first makes its copies, in one transaction as many as a page has, or those of one message.
  IF v_has_copies THEN
    WITH served AS MATERIALIZED (
      SELECT DISTINCT q.topic FROM hawser_data.queue AS q WHERE q.ctid = ANY (v_tids) AND q.to_all AND q.recipient IN ('', @QueueConstants.priority_mark@)
    ), listed AS MATERIALIZED (
      SELECT a.topic, a.listener_name, a.durable, p.group_name
        FROM served AS s
        JOIN hawser_data.listeners AS a ON a.topic = s.topic
        LEFT JOIN hawser_data.peers AS p ON p.name = a.listener_name
    ), running AS MATERIALIZED (
      SELECT unnest(r.running) AS name
        FROM hawser.running_peers(ARRAY(SELECT DISTINCT l.listener_name FROM listed AS l WHERE l.group_name IS NULL AND NOT l.durable)) AS r
    )
    SELECT array_agg(c.topic), array_agg(c.recipient) INTO v_copied_topics, v_copied_recipients
      FROM (
        SELECT l.topic, CASE WHEN l.group_name IS NULL THEN '@' || l.listener_name ELSE '#' || l.group_name END AS recipient
          FROM listed AS l WHERE l.group_name IS NOT NULL OR l.durable OR l.listener_name IN (SELECT r.name FROM running AS r)
        UNION
        SELECT s.topic, CASE WHEN w.group_name IS NULL THEN '@' || w.name ELSE '#' || w.group_name END
          FROM served AS s JOIN hawser_data.workers AS w ON w.gone_at IS NULL AND s.topic = ANY (w.topics)
      ) AS c;
    v_tids := ARRAY(
      SELECT n.tid
        FROM (
          SELECT q.ctid AS tid, c.count, row_number() OVER w AS nth, sum(c.count) OVER w AS copies, sum(c.count * octet_length(q.payload)) OVER w AS bytes
            FROM hawser_data.queue AS q
            LEFT JOIN (SELECT u.topic, count(*) AS count FROM unnest(v_copied_topics) AS u (topic) GROUP BY 1) AS c
              ON q.to_all AND q.recipient IN ('', @QueueConstants.priority_mark@) AND c.topic = q.topic
           WHERE q.ctid = ANY (v_tids)
          WINDOW w AS (PARTITION BY c.count IS NULL ORDER BY q.id)
        ) AS n
       WHERE n.count IS NULL OR n.nth = 1 OR (n.copies <= @OutboxConstants.page_messages@ AND n.bytes <= p_max_bytes)
    );
  END IF;
  IF v_has_keys THEN
    -- Of each role a key is taken from its first message on, and freed from its end: so its first row says who has it, and is its lock,
    -- which no login can have that may not take messages. Nobody waits: a key that another transaction looks at is left. A statement
    -- of its own, behind the locks: of two that take messages of a key, the later one sees what the other has locked or taken.
    WITH RECURSIVE locked AS MATERIALIZED (
      SELECT q.ctid AS tid, q.topic, q.recipient, q.role, q.key, q.id FROM hawser_data.queue AS q WHERE q.ctid = ANY (v_tids)
    ), heads AS (
      SELECT l.topic, l.recipient, l.key, '' AS role, NULL::bigint AS id, NULL::bigint AS worker
        FROM (SELECT DISTINCT k.topic, k.recipient, k.key FROM locked AS k WHERE k.key IS NOT NULL) AS l
      UNION ALL
      SELECT h.topic, h.recipient, h.key, n.role, n.id, n.worker
        FROM heads AS h
       CROSS JOIN LATERAL (
         SELECT q.role, q.id, q.worker FROM hawser_data.queue AS q
          WHERE q.topic = h.topic AND q.recipient = h.recipient AND q.key = h.key AND q.role > h.role ORDER BY q.role, q.id LIMIT 1
       ) AS n
    ), others AS MATERIALIZED (
      SELECT h.topic, h.recipient, h.key
        FROM heads AS h
       WHERE h.role <> '' AND h.worker IS DISTINCT FROM p_worker AND h.id NOT IN (SELECT l.id FROM locked AS l)
         AND CASE
               WHEN EXISTS (SELECT FROM hawser_data.workers AS w WHERE w.id = h.worker AND w.gone_at IS NULL) THEN true
               ELSE (
                 SELECT true FROM hawser_data.queue AS q
                  WHERE q.topic = h.topic AND q.recipient = h.recipient AND q.role = h.role AND q.id = h.id AND q.worker IS NOT DISTINCT FROM h.worker
                    FOR UPDATE SKIP LOCKED
               ) IS NULL
             END
    ), stops AS MATERIALIZED (
      -- The first of as many rows as are locked that is not one of them.
      SELECT r.topic, r.recipient, r.key, r.role, min(r.id) AS id
        FROM (
          SELECT s.topic, s.recipient, s.key, s.role, n.id
            FROM (
              SELECT l.topic, l.recipient, l.key, l.role, count(*) AS count FROM locked AS l WHERE l.key IS NOT NULL GROUP BY 1, 2, 3, 4
            ) AS s
           CROSS JOIN LATERAL (
             SELECT q.id FROM hawser_data.queue AS q
              WHERE q.topic = s.topic AND q.recipient = s.recipient AND q.key = s.key AND q.role = s.role AND q.worker IS DISTINCT FROM p_worker
              ORDER BY q.id LIMIT s.count
           ) AS n
        ) AS r
       WHERE r.id NOT IN (SELECT l.id FROM locked AS l)
       GROUP BY 1, 2, 3, 4
    )
    SELECT coalesce(array_agg(l.tid), '{}') INTO v_tids
      FROM locked AS l
     WHERE l.key IS NULL
        OR (l.topic, l.recipient, l.key) NOT IN (SELECT o.topic, o.recipient, o.key FROM others AS o)
           AND NOT EXISTS (
             SELECT FROM stops AS s
              WHERE s.topic = l.topic AND s.recipient = l.recipient AND s.key = l.key AND s.role = l.role AND s.id < l.id
           );
  END IF;

  -- Of what a worker had that is gone, only its first messages may have been running, and of a key only the first.
  IF v_has_gone THEN
    WITH had AS (
      SELECT q.worker, q.topic || ':' || q.recipient AS place, q.id,
             q.key IS NULL OR row_number() OVER (PARTITION BY q.worker, q.topic, q.recipient, q.role, q.key ORDER BY q.id) = 1 AS may_run
        FROM hawser_data.queue AS q WHERE q.ctid = ANY (v_tids) AND q.worker IS NOT NULL
    ), suspects AS MATERIALIZED (
      SELECT h.id, h.worker, h.place, coalesce((w.suspects ->> h.place)::integer, w.concurrency) AS rest
        FROM (SELECT h.*, row_number() OVER (PARTITION BY h.worker, h.place ORDER BY h.id) AS nth FROM had AS h WHERE h.may_run) AS h
        JOIN hawser_data.workers AS w ON w.id = h.worker AND w.gone_at IS NOT NULL
       WHERE h.nth <= coalesce((w.suspects ->> h.place)::integer, w.concurrency)
    ), counted AS (
      UPDATE hawser_data.workers AS w SET suspects = w.suspects || c.suspects
        FROM (
          SELECT p.worker, jsonb_object_agg(p.place, p.rest) AS suspects
            FROM (SELECT s.worker, s.place, min(s.rest) - count(*) AS rest FROM suspects AS s GROUP BY 1, 2) AS p GROUP BY 1
        ) AS c
       WHERE w.id = c.worker
    )
    SELECT coalesce(array_agg(s.id), '{}') INTO v_suspects FROM suspects AS s;
  END IF;

  IF v_has_copies THEN
    v_spread := ARRAY(SELECT q.ctid FROM hawser_data.queue AS q WHERE q.ctid = ANY (v_tids) AND q.to_all AND q.recipient IN ('', @QueueConstants.priority_mark@));
    v_tids := ARRAY(SELECT t.tid FROM unnest(v_tids) AS t (tid) WHERE t.tid <> ALL (v_spread));
    WITH spread AS MATERIALIZED (
      DELETE FROM hawser_data.queue AS q WHERE q.ctid = ANY (v_spread) RETURNING q.*
    )
    INSERT INTO hawser_data.queue (topic, recipient, role, id, key, origin, to_all, enqueued_at, payload, headers)
    SELECT c.topic, c.recipient || c.for_recipient, c.role, nextval('hawser_data.outbox_id_seq') + (c.id >> @QueueConstants.id_bits@ << @QueueConstants.id_bits@), c.key, c.origin, true, c.enqueued_at, c.payload, c.headers
      FROM (
        SELECT s.*, r.recipient AS for_recipient
          FROM spread AS s JOIN unnest(v_copied_topics, v_copied_recipients) AS r (topic, recipient) ON r.topic = s.topic
         ORDER BY s.id, r.recipient
      ) AS c;
    v_done := hawser.wake_topics(ARRAY(SELECT DISTINCT u.topic FROM unnest(v_copied_topics) AS u (topic)));
  END IF;

  IF v_topic IS NOT NULL THEN
    INSERT INTO hawser_data.topic_starts AS s (topic, recipient, role, id, worker, started_at)
    SELECT q.topic, q.recipient, q.role, q.id, p_worker, v_admitted.at FROM hawser_data.queue AS q WHERE q.ctid = ANY (v_tids)
    ON CONFLICT (topic, recipient, role, id) DO UPDATE SET worker = excluded.worker, started_at = excluded.started_at;
    v_wait_ms := CASE
      -- Another worker is taking some of them.
      WHEN v_admitted.at IS NULL THEN (random() * @QueueConstants.least_wait_ms@)::integer + 1
      ELSE (SELECT c.wait_ms FROM hawser.count_starts(v_topic, v_admitted.at, cardinality(v_tids)) AS c)
    END;
  END IF;

  RETURN QUERY
  WITH taken AS (
    UPDATE hawser_data.queue AS q
       SET worker = p_worker, attempts = CASE WHEN q.id = ANY (v_suspects) THEN least(q.attempts + 1, 32767) ELSE q.attempts END,
           keep_ms = CASE WHEN v_keep_ms IS NULL OR q.to_all THEN q.keep_ms ELSE coalesce(q.keep_ms, (v_keep_ms ->> q.topic)::integer) END
     WHERE q.ctid = ANY (v_tids)
    RETURNING q.*
  )
  SELECT t.topic, t.recipient, t.role, t.id, t.key, t.payload, @headers_of(t)@, t.attempts::integer, t.id = ANY (v_suspects), t.origin, t.enqueued_at, NULL::integer,
         t.unique_key IS NOT NULL, t.keep_ms IS NOT NULL
    FROM taken AS t
  UNION ALL
  SELECT u.topic, u.recipient, u.role, u.id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
    FROM unnest(v_topics, v_recipients, v_roles, v_upto) AS u (topic, recipient, role, id)
  UNION ALL
  SELECT l.topic, '', '', 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, v_wait_ms, NULL, NULL FROM unnest(v_limited) AS l (topic)
   ORDER BY 4;
END
