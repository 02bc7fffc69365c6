#variable_conflict use_column
-- A row is free if its worker is not there or is gone. Each statement that asks so also reads the workers, of the same moment, and what
-- it has found is locked only if its worker is still the same: an id is never used again, so that a row which another one has taken
-- meanwhile is left.
DECLARE
  -- One value, as an index is searched for it.
  v_now CONSTANT timestamptz := clock_timestamp();
  v_has_more boolean := false;
  v_asked text[];
  v_may_find boolean;
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
  -- Those that wait for others of their role and key, and of their role and key of the limit.
  v_passed bigint[] := '{}';
  v_full tid[] := '{}';
  v_has_copies boolean;
  v_has_gone boolean := false;
  v_tids tid[];
  v_ranks bigint[];
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
  v_keys jsonb;
  -- What is taken of workers that are gone, and of it what counts as tried.
  v_left bigint[] := '{}';
  v_tried bigint[] := '{}';
  -- Some are to be cancelled.
  v_cancels boolean;
  v_has_settings boolean;
  v_done boolean;
BEGIN
  -- From here on a session that stands still holds up others.
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  SELECT CASE p_topics WHEN '{}' THEN w.topics ELSE p_topics END,
         l.places || ARRAY(SELECT @QueueConstants.priority_mark@ || p.recipient FROM unnest(l.places) AS p (recipient)),
         EXISTS (SELECT FROM hawser_data.cancellations),
         EXISTS (SELECT FROM hawser_data.topic_settings AS s WHERE s.topic = ANY (CASE p_topics WHEN '{}' THEN w.topics ELSE p_topics END))
    INTO v_asked, v_places, v_cancels, v_has_settings
    FROM hawser_data.workers AS w
   CROSS JOIN LATERAL (
     SELECT array_remove(ARRAY['', '@' || w.name, '#' || w.group_name], NULL) || ARRAY(SELECT '@' || n.name FROM unnest(w.stands_in_for) AS n (name)) AS places
   ) AS l
   WHERE w.id = p_worker AND w.gone_at IS NULL;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('lease_lost'),
      MESSAGE = format('the worker %s has ended', p_worker),
      HINT = 'Begin a new one with hawser.open_worker, and forget what this one had.';
  END IF;
  -- What is to be cancelled, and whose handler has ended or will not begin, is taken by nobody.
  IF v_cancels THEN
    v_done := hawser.end_cancelled(NULL, '{}') IS NULL;
  END IF;
  IF v_has_settings THEN
    -- Nothing is taken of a paused topic, and of one with limits only if no other one is asked for: taking is starting.
    SELECT coalesce(array_agg(s.topic) FILTER (WHERE s.paused_at IS NULL AND num_nonnulls(s.rate, s.running, s.running_per_key) > 0), '{}'),
           jsonb_object_agg(s.topic, s.keep_ms) FILTER (WHERE s.keep_ms IS NOT NULL)
      INTO v_limited, v_keep_ms FROM hawser_data.topic_settings AS s WHERE s.topic = ANY (v_asked);
    v_asked := ARRAY(
      SELECT t.topic FROM unnest(v_asked) AS t (topic) WHERE NOT EXISTS (SELECT FROM hawser_data.topic_settings AS s WHERE s.topic = t.topic AND (s.paused_at IS NOT NULL OR s.topic = ANY (v_limited)))
    );
    IF v_asked = '{}' AND cardinality(v_limited) = 1 THEN
      v_topic := v_limited[1];
      SELECT a.* INTO v_admitted FROM hawser.admit_starts(v_topic, NULL) AS a;
      v_most := least(p_most, v_admitted.most);
      -- Some are looked at that may not start, and passed: the rest of their key has to wait.
      v_rows := greatest(v_most, CASE WHEN v_admitted.per_key > 0 THEN 500 ELSE 100 END);
    END IF;
  END IF;

  -- Most looks of an idle worker find nothing, and to see that takes less time than to set up the search. In a large table an old snapshot
  -- may keep many rows that are gone before the first one that is there.
  v_may_find := pg_relation_size('hawser_data.queue') > @QueueConstants.small_bytes@ OR EXISTS (
    SELECT FROM unnest(v_asked || v_topic) AS t (topic)
     CROSS JOIN unnest(v_places) AS r (recipient)
     CROSS JOIN LATERAL (
       (
         SELECT FROM hawser_data.queue AS q
          WHERE q.topic = t.topic AND q.recipient = r.recipient AND q.due_at IS NULL AND q.behind IS NULL ORDER BY q.role, q.rank LIMIT 1
       )
       UNION ALL
       (
         SELECT FROM hawser_data.queue AS q
          WHERE q.topic = t.topic AND q.recipient = r.recipient AND q.due_at IS NOT NULL AND q.behind IS NULL ORDER BY q.role, q.due_at LIMIT 1
       )
     ) AS f
  );

  -- The first rows of each place and role, and those that are due again. Each role gets an equal part, however many messages others
  -- have; a priority orders those of one role alone. This looks at messages with a priority from the first one on, since a new one may
  -- come before those that it has seen. The roles of
  -- a place are found one behind the other in the index; what a role has had before a known position may be dead there by thousands.
  IF v_may_find AND v_asked <> '{}' THEN
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
      SELECT s.topic, s.recipient, s.role,
             CASE WHEN starts_with(s.recipient, @QueueConstants.priority_mark@) THEN -9223372036854775808 ELSE coalesce((s.known ->> s.role)::bigint, -9223372036854775808) END AS after,
             least(p_most, 2 * p_most / count(*) OVER () + 1) AS most
        FROM sources AS s WHERE s.role <> ''
    ), found AS MATERIALIZED (
      SELECT p.topic, p.recipient, p.role, f.*, random() AS lot
        FROM parts AS p
       CROSS JOIN LATERAL (
         (
           SELECT q.ctid AS tid, q.rank, q.key, q.worker, q.to_all, @taken_bytes(q)@ AS bytes, q.due_at
             FROM hawser_data.queue AS q
            WHERE q.topic = p.topic AND q.recipient = p.recipient AND q.role = p.role AND q.rank > p.after AND q.due_at IS NULL AND q.behind IS NULL
              AND (q.worker IS NULL OR NOT EXISTS (SELECT FROM hawser_data.workers AS w WHERE w.id = q.worker AND w.gone_at IS NULL))
            ORDER BY q.rank LIMIT p.most
         )
         UNION ALL
         (
           SELECT q.ctid, q.rank, q.key, q.worker, q.to_all, @taken_bytes(q)@, q.due_at
             FROM hawser_data.queue AS q
            WHERE q.topic = p.topic AND q.recipient = p.recipient AND q.role = p.role AND q.due_at <= v_now AND q.behind IS NULL
              AND (q.worker IS NULL OR NOT EXISTS (SELECT FROM hawser_data.workers AS w WHERE w.id = q.worker AND w.gone_at IS NULL))
            ORDER BY q.due_at, q.rank LIMIT p.most
         )
       ) AS f
    ), ordered AS MATERIALIZED (
      SELECT n.*
        FROM (
          SELECT r.*, row_number() OVER w AS place, sum(r.bytes) OVER w AS upto
            FROM (
              SELECT f.*, row_number() OVER o AS nth, (sum(f.bytes) OVER o - f.bytes) / @QueueConstants.turn_bytes@ AS bytes_before, bool_or(f.bytes > p_max_bytes) OVER o AS is_behind_long
                FROM found AS f
              WINDOW o AS (PARTITION BY f.topic, ltrim(f.recipient, @QueueConstants.priority_mark@), f.role, f.due_at IS NULL ORDER BY f.rank >> @QueueConstants.id_bits@, f.due_at, f.rank)
            ) AS r
          -- A message longer than all that a take may bring comes alone, now and then: by bytes as often as the messages of others, which come
          -- before it otherwise.
          WINDOW w AS (
            ORDER BY CASE WHEN NOT r.is_behind_long THEN 1 WHEN r.nth = 1 AND r.lot < least(0.5, p_most * @QueueConstants.turn_bytes@::bigint::numeric / r.bytes) THEN 0 ELSE 2 END, r.nth + r.bytes_before, r.lot, r.nth ROWS UNBOUNDED PRECEDING
          )
        ) AS n
       WHERE n.place <= p_most
    ), chosen AS MATERIALIZED (
      SELECT c.* FROM ordered AS c WHERE c.place = 1 OR c.upto <= p_max_bytes
    ), looked AS (
      SELECT c.topic, c.recipient, c.role, max(c.rank) AS upto FROM chosen AS c WHERE c.due_at IS NULL AND NOT starts_with(c.recipient, @QueueConstants.priority_mark@) GROUP BY 1, 2, 3
    )
    SELECT c.*, l.*, (SELECT count(*) FROM ordered) > (SELECT count(*) FROM chosen) INTO v_tids, v_ranks, v_workers, v_has_keys, v_has_copies, v_topics, v_recipients, v_roles, v_upto, v_has_more
      FROM (
        SELECT array_agg(c.tid), array_agg(c.rank), array_agg(c.worker), bool_or(c.key IS NOT NULL), bool_or(c.to_all AND c.recipient IN ('', @QueueConstants.priority_mark@)) FROM chosen AS c
      ) AS c, (
        SELECT array_agg(l.topic), array_agg(l.recipient), array_agg(l.role), array_agg(l.upto) FROM looked AS l
      ) AS l;
  END IF;
  IF v_may_find AND v_topic IS NOT NULL THEN
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
      SELECT q.recipient, q.role, q.key, CASE WHEN v_admitted.per_key > 0 THEN hawser.limit_key(q.key, q.headers, v_admitted.key_header) END AS limit_key
        FROM hawser_data.topic_starts AS s JOIN hawser_data.queue AS q USING (topic, recipient, role, rank) WHERE s.topic = v_topic
    ), found AS MATERIALIZED (
      SELECT s.recipient, s.role, f.*, random() AS lot
        FROM sources AS s
       CROSS JOIN LATERAL (
         (
           SELECT q.ctid AS tid, q.rank, q.id, q.key, q.worker, q.to_all, @taken_bytes(q)@ AS bytes, q.due_at,
                  CASE WHEN v_admitted.per_key > 0 THEN hawser.limit_key(q.key, q.headers, v_admitted.key_header) END AS limit_key
             FROM hawser_data.queue AS q
            WHERE q.topic = v_topic AND q.recipient = s.recipient AND q.role = s.role AND q.due_at IS NULL AND q.behind IS NULL
              AND q.rank > CASE
                    WHEN starts_with(s.recipient, @QueueConstants.priority_mark@) OR jsonb_typeof(s.known) IS DISTINCT FROM 'object' THEN -9223372036854775808
                    ELSE coalesce((s.known ->> s.role)::bigint, -9223372036854775808)
                  END
              AND (q.worker IS NULL OR NOT EXISTS (SELECT FROM hawser_data.workers AS w WHERE w.id = q.worker AND w.gone_at IS NULL))
            ORDER BY q.rank LIMIT v_rows
         )
         UNION ALL
         (
           SELECT q.ctid, q.rank, q.id, q.key, q.worker, q.to_all, @taken_bytes(q)@, q.due_at,
                  CASE WHEN v_admitted.per_key > 0 THEN hawser.limit_key(q.key, q.headers, v_admitted.key_header) END
             FROM hawser_data.queue AS q
            WHERE q.topic = v_topic AND q.recipient = s.recipient AND q.role = s.role AND q.due_at <= v_now AND q.behind IS NULL
              AND (q.worker IS NULL OR NOT EXISTS (SELECT FROM hawser_data.workers AS w WHERE w.id = q.worker AND w.gone_at IS NULL))
            ORDER BY q.due_at, q.rank LIMIT v_rows
         )
       ) AS f
       WHERE s.role <> ''
    ), headed AS MATERIALIZED (
      SELECT f.*, (
               SELECT h.rank FROM hawser_data.queue AS h
                WHERE h.topic = v_topic AND h.recipient = f.recipient AND h.key = f.key AND h.role = f.role ORDER BY h.rank LIMIT 1
             ) AS head
        FROM found AS f
    ), first AS MATERIALIZED (
      SELECT f.*, row_number() OVER (PARTITION BY f.role, f.limit_key ORDER BY f.rank >> @QueueConstants.id_bits@, f.due_at, f.rank) AS of_limit_key
        FROM headed AS f
       WHERE f.key IS NULL OR f.head = f.rank AND NOT EXISTS (SELECT FROM started AS s WHERE s.recipient = f.recipient AND s.role = f.role AND s.key = f.key)
    ), allowed AS MATERIALIZED (
      SELECT f.*, row_number() OVER (
               PARTITION BY ltrim(f.recipient, @QueueConstants.priority_mark@), f.role, f.due_at IS NULL ORDER BY f.rank >> @QueueConstants.id_bits@, f.due_at, f.rank
             ) AS nth
        FROM first AS f
       WHERE (f.limit_key IS NULL OR f.of_limit_key + (SELECT count(*) FROM started AS s WHERE s.role = f.role AND s.limit_key = f.limit_key) <= v_admitted.per_key)
    ), chosen AS MATERIALIZED (
      SELECT n.*
        FROM (
          SELECT a.*, row_number() OVER w AS place, sum(a.bytes) OVER w AS upto FROM allowed AS a
          WINDOW w AS (ORDER BY a.nth, a.lot ROWS UNBOUNDED PRECEDING)
        ) AS n
       WHERE n.place = 1 OR (n.place <= v_most AND n.upto <= p_max_bytes)
    ), looked AS (
      -- Up to the first one that is left and might start, or all that was found.
      SELECT f.recipient, f.role, coalesce(min(a.rank) FILTER (WHERE c.tid IS NULL) - 1, max(f.rank)) AS upto
        FROM found AS f LEFT JOIN allowed AS a ON a.tid = f.tid LEFT JOIN chosen AS c ON c.tid = f.tid
       WHERE f.due_at IS NULL AND NOT starts_with(f.recipient, @QueueConstants.priority_mark@)
       GROUP BY 1, 2
    )
    SELECT c.*, l.*, (SELECT count(*) FROM allowed) > (SELECT count(*) FROM chosen),
           coalesce((SELECT array_agg(h.id) FROM headed AS h WHERE h.head <> h.rank AND h.worker IS NULL), '{}'),
           coalesce((SELECT array_agg(f.tid) FROM first AS f WHERE f.limit_key IS NOT NULL AND f.worker IS NULL AND f.tid NOT IN (SELECT a.tid FROM allowed AS a)), '{}')
      INTO v_tids, v_ranks, v_workers, v_has_keys, v_has_copies, v_topics, v_recipients, v_roles, v_upto, v_has_more, v_passed, v_full
      FROM (
        SELECT array_agg(c.tid), array_agg(c.rank), array_agg(c.worker), bool_or(c.key IS NOT NULL), bool_or(c.to_all AND c.recipient IN ('', @QueueConstants.priority_mark@)) FROM chosen AS c
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
      FROM unnest(v_tids, v_ranks, v_workers) AS f (tid, rank, worker)
     CROSS JOIN LATERAL (
       SELECT FROM hawser_data.queue AS q WHERE q.ctid = f.tid AND q.rank = f.rank AND q.worker IS NOT DISTINCT FROM f.worker
          AND NOT (v_cancels AND EXISTS (
            SELECT FROM hawser_data.cancellations AS c WHERE c.topic = q.topic AND c.recipient = q.recipient AND c.role = q.role AND c.rank = q.rank
          ))
          FOR UPDATE SKIP LOCKED
     ) AS q
  );
  -- A message for all: who takes it first makes its copies, in one transaction as many as a page has, or those of one message.
  IF v_has_copies THEN
    WITH served AS MATERIALIZED (
      SELECT DISTINCT q.topic FROM hawser_data.queue AS q WHERE q.ctid = ANY (v_tids) AND q.to_all AND q.recipient IN ('', @QueueConstants.priority_mark@)
    ), listed AS MATERIALIZED (
      SELECT a.topic, a.listener_name, a.durable, p.group_name
        FROM served AS s
        JOIN hawser_peer_data.listeners AS a ON a.topic = s.topic
        LEFT JOIN hawser_peer_data.peers AS p ON p.name = a.listener_name
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
          SELECT q.ctid AS tid, c.count, row_number() OVER w AS nth, sum(c.count) OVER w AS copies, sum(c.count * @memory_bytes(q)@) OVER w AS bytes
            FROM hawser_data.queue AS q
            LEFT JOIN (SELECT u.topic, count(*) AS count FROM unnest(v_copied_topics) AS u (topic) GROUP BY 1) AS c
              ON q.to_all AND q.recipient IN ('', @QueueConstants.priority_mark@) AND c.topic = q.topic
           WHERE q.ctid = ANY (v_tids)
          WINDOW w AS (PARTITION BY c.count IS NULL ORDER BY q.rank)
        ) AS n
       WHERE n.count IS NULL OR n.nth = 1 OR (n.copies <= @OutboxConstants.page_messages@ AND n.bytes <= p_max_bytes)
    );
  END IF;
  IF v_has_keys THEN
    -- A worker takes a role's key from its first message on, a bounded run at a time, so that one key does not have all places. The first
    -- row is the lock of the key: only who may take messages can lock it. A take does not wait for a key that another transaction
    -- looks at, and leaves it. This is a statement of its own, behind the locks: of two takes of a key, the later one sees what the other
    -- one has locked or taken.
    WITH locked AS MATERIALIZED (
      SELECT q.ctid AS tid, q.topic, q.recipient, q.role, q.key, q.rank, q.id FROM hawser_data.queue AS q WHERE q.ctid = ANY (v_tids)
    ), firsts AS MATERIALIZED (
      SELECT l.topic, l.recipient, l.role, l.key, n.rank, n.worker
        FROM (SELECT k.topic, k.recipient, k.role, k.key, max(k.rank) AS upto FROM locked AS k WHERE k.key IS NOT NULL GROUP BY 1, 2, 3, 4) AS l
       CROSS JOIN LATERAL (
         SELECT q.rank, q.worker FROM hawser_data.queue AS q
          WHERE q.topic = l.topic AND q.recipient = l.recipient AND q.role = l.role AND q.key = l.key AND q.rank <= l.upto ORDER BY q.rank LIMIT @QueueConstants.key_run@
       ) AS n
    ), stops AS MATERIALIZED (
      SELECT f.topic, f.recipient, f.role, f.key, min(f.rank) AS rank
        FROM firsts AS f WHERE f.worker IS DISTINCT FROM p_worker AND f.rank NOT IN (SELECT l.rank FROM locked AS l) GROUP BY 1, 2, 3, 4
    ), decided AS (
      SELECT l.tid, l.id,
             l.key IS NULL OR l.rank IN (SELECT f.rank FROM firsts AS f) AND NOT EXISTS (
               SELECT FROM stops AS s WHERE s.topic = l.topic AND s.recipient = l.recipient AND s.role = l.role AND s.key = l.key AND s.rank < l.rank
             ) AS is_taken
        FROM locked AS l
    )
    SELECT coalesce(array_agg(d.tid) FILTER (WHERE d.is_taken), '{}'), v_passed || coalesce(array_agg(d.id) FILTER (WHERE NOT d.is_taken), '{}') INTO v_tids, v_passed FROM decided AS d;
  END IF;
  IF v_passed <> '{}' THEN
    v_done := hawser.put_behind(v_passed);
  END IF;

  -- What a worker had that is gone is suspect, and counts as tried if its handler was told to begin. For the first time nothing need have
  -- been told: then the first messages may have been running, and of a key the first.
  IF v_has_gone THEN
    WITH had AS (
      SELECT q.worker, q.topic || ':' || q.recipient AS place, q.rank, q.is_suspect, q.begun_by IS NOT DISTINCT FROM q.worker AS has_begun,
             q.key IS NULL OR row_number() OVER (PARTITION BY q.worker, q.topic, q.recipient, q.role, q.key ORDER BY q.rank) = 1 AS may_run
        FROM hawser_data.queue AS q JOIN hawser_data.workers AS w ON w.id = q.worker AND w.gone_at IS NOT NULL WHERE q.ctid = ANY (v_tids)
    ), guessed AS MATERIALIZED (
      SELECT h.rank, h.worker, h.place, coalesce((w.suspects ->> h.place)::integer, w.concurrency) AS rest
        FROM (
          SELECT h.*, row_number() OVER (PARTITION BY h.worker, h.place ORDER BY h.rank) AS nth FROM had AS h WHERE h.may_run AND NOT h.is_suspect AND NOT h.has_begun
        ) AS h
        JOIN hawser_data.workers AS w ON w.id = h.worker
       WHERE h.nth <= coalesce((w.suspects ->> h.place)::integer, w.concurrency)
    ), counted AS (
      UPDATE hawser_data.workers AS w SET suspects = w.suspects || c.suspects
        FROM (
          SELECT p.worker, jsonb_object_agg(p.place, p.rest) AS suspects
            FROM (SELECT g.worker, g.place, min(g.rest) - count(*) AS rest FROM guessed AS g GROUP BY 1, 2) AS p GROUP BY 1
        ) AS c
       WHERE w.id = c.worker
    )
    SELECT coalesce(array_agg(h.rank), '{}'), coalesce(array_agg(h.rank) FILTER (WHERE h.has_begun OR h.rank IN (SELECT g.rank FROM guessed AS g)), '{}')
      INTO v_left, v_tried FROM had AS h;
  END IF;

  IF v_has_copies THEN
    v_spread := ARRAY(SELECT q.ctid FROM hawser_data.queue AS q WHERE q.ctid = ANY (v_tids) AND q.to_all AND q.recipient IN ('', @QueueConstants.priority_mark@));
    v_tids := ARRAY(SELECT t.tid FROM unnest(v_tids) AS t (tid) WHERE t.tid <> ALL (v_spread));
    v_keys := (SELECT jsonb_agg(@marks_of(q)@) FROM hawser_data.queue AS q WHERE q.ctid = ANY (v_spread) AND q.key IS NOT NULL);
    -- Of a long message as many copies as a take may bring, so that it ends in its time: the next take makes others.
    WITH copies AS MATERIALIZED (
      SELECT s.*, r.recipient AS for_recipient, row_number() OVER (PARTITION BY s.tid ORDER BY r.recipient) <= greatest(1, p_max_bytes / greatest(1, s.bytes)) AS is_made
        FROM (SELECT q.ctid AS tid, @memory_bytes(q)@ AS bytes, q.* FROM hawser_data.queue AS q WHERE q.ctid = ANY (v_spread)) AS s
        JOIN unnest(v_copied_topics, v_copied_recipients) AS r (topic, recipient) ON r.topic = s.topic AND (s.copied_upto IS NULL OR r.recipient > s.copied_upto)
    ), goes_on AS MATERIALIZED (
      UPDATE hawser_data.queue AS q SET copied_upto = c.upto
        FROM (SELECT n.tid, max(n.for_recipient) FILTER (WHERE n.is_made) AS upto FROM copies AS n GROUP BY 1 HAVING NOT bool_and(n.is_made)) AS c
       WHERE q.ctid = c.tid
      RETURNING c.tid, q.topic, q.recipient, q.role, q.rank
    ), ended AS (
      DELETE FROM hawser_data.queue AS q WHERE q.ctid = ANY (v_spread) AND q.ctid NOT IN (SELECT g.tid FROM goes_on AS g)
    ), made AS (
      INSERT INTO hawser_data.queue (topic, recipient, role, role_id, rank, id, key, origin, to_all, enqueued_at, payload, headers)
      SELECT c.topic, c.recipient || c.for_recipient, c.role, c.role_id, c.next_id + (c.rank >> @QueueConstants.id_bits@ << @QueueConstants.id_bits@), c.next_id, c.key, c.origin, true, c.enqueued_at, c.payload, c.headers
        FROM (SELECT n.*, nextval('hawser_data.outbox_id_seq') AS next_id FROM copies AS n WHERE n.is_made ORDER BY n.rank, n.for_recipient) AS c
    )
    SELECT array_agg(CASE WHEN g.rank <= u.upto THEN g.rank - 1 ELSE u.upto END ORDER BY u.nth), bool_or(g.rank IS NOT NULL) OR v_has_more INTO v_upto, v_has_more
      FROM unnest(v_topics, v_recipients, v_roles, v_upto) WITH ORDINALITY AS u (topic, recipient, role, upto, nth)
      LEFT JOIN LATERAL (SELECT min(o.rank) AS rank FROM goes_on AS o WHERE o.topic = u.topic AND o.recipient = u.recipient AND o.role = u.role) AS g ON true;
    v_done := hawser.wake_topics(ARRAY(SELECT DISTINCT u.topic FROM unnest(v_copied_topics) AS u (topic)));
    IF v_keys IS NOT NULL THEN
      v_done := hawser.pass_keys(v_keys);
    END IF;
  END IF;

  IF v_topic IS NOT NULL THEN
    INSERT INTO hawser_data.topic_starts AS s (topic, recipient, role, rank, worker, started_at, limit_key)
    SELECT q.topic, q.recipient, q.role, q.rank, p_worker, v_admitted.at,
           CASE WHEN v_admitted.per_key > 0 THEN hawser.limit_key(q.key, q.headers, v_admitted.key_header) END
      FROM hawser_data.queue AS q WHERE q.ctid = ANY (v_tids)
    ON CONFLICT (topic, recipient, role, rank) DO UPDATE SET worker = excluded.worker, started_at = excluded.started_at, limit_key = excluded.limit_key;
    -- Behind those of their role and key of the limit that run: the end of one is found by who looks next, which has the lock of the topic, too.
    IF v_full <> '{}' THEN
      WITH passed AS MATERIALIZED (
        SELECT q.ctid AS tid, hawser.limit_key(q.key, q.headers, v_admitted.key_header) AS limit_key
          FROM hawser_data.queue AS q WHERE q.ctid = ANY (v_full) AND q.worker IS NULL AND q.behind IS NULL FOR UPDATE SKIP LOCKED
      )
      UPDATE hawser_data.queue AS q SET behind = @QueueConstants.behind_limit@ || p.limit_key
        FROM passed AS p
       WHERE q.ctid = p.tid
         AND (SELECT count(*) FROM hawser_data.topic_starts AS s WHERE s.topic = v_topic AND s.role = q.role AND s.limit_key = p.limit_key) >= v_admitted.per_key;
    END IF;
    v_wait_ms := CASE
      -- Another worker is taking some of them.
      WHEN v_admitted.at IS NULL THEN (random() * @QueueConstants.least_wait_ms@)::integer + 1
      ELSE (SELECT c.wait_ms FROM hawser.count_starts(v_topic, v_admitted.at, cardinality(v_tids)) AS c)
    END;
  END IF;

  RETURN QUERY
  WITH taken AS (
    UPDATE hawser_data.queue AS q
       SET worker = p_worker, attempts = CASE WHEN q.rank = ANY (v_tried) THEN least(q.attempts + 1, 32767) ELSE q.attempts END,
           is_suspect = q.is_suspect OR q.rank = ANY (v_left), was_running = q.was_running OR q.rank = ANY (v_left) AND q.begun_by IS NOT DISTINCT FROM q.worker, begun_by = NULL,
           keep_ms = CASE WHEN v_keep_ms IS NULL OR q.to_all THEN q.keep_ms ELSE coalesce(q.keep_ms, (v_keep_ms ->> q.topic)::integer) END
     WHERE q.ctid = ANY (v_tids)
    RETURNING q.*
  )
  SELECT t.topic, t.recipient, t.role, t.rank, t.id, t.key, t.payload, @headers_of(t)@, t.attempts::integer, t.is_suspect, t.origin, t.enqueued_at, NULL::integer,
         t.unique_key IS NOT NULL, t.keep_ms IS NOT NULL, t.was_running, v_has_more
    FROM taken AS t
  UNION ALL
  SELECT u.topic, u.recipient, u.role, u.rank, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, v_has_more
    FROM unnest(v_topics, v_recipients, v_roles, v_upto) AS u (topic, recipient, role, rank)
  UNION ALL
  SELECT l.topic, '', '', 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, v_wait_ms, NULL, NULL, NULL, v_has_more FROM unnest(v_limited) AS l (topic)
   ORDER BY 4;
END
