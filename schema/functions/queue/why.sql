#variable_conflict use_column
DECLARE
  v_roles CONSTANT text[] := hawser.callers_roles();
  v_now CONSTANT timestamptz := clock_timestamp();
  v_id bigint := why.id;
  v_is_later boolean;
  -- The first of those that it is held for.
  v_before jsonb;
  v_before_id text;
  v_before_dead text;
  v_failure jsonb;
  v_failed_at timestamptz;
  v_wait_s bigint;
  v_wait text;
  v_topic text;
  v_word text;
  v_only_reads boolean;
  q hawser_data.queue;
BEGIN
  IF v_id IS NULL THEN
    v_id := hawser.first_in_line(why.topic, why.key);
    IF v_id IS NULL THEN
      v_topic := why.topic;
      v_word := @shell_word(v_topic)@;
      RETURN QUERY SELECT NULL::bigint, 1, 'waits', false, NULL, NULL::timestamptz,
        format('no enqueued message of the topic %s%s waits that you may see', to_json(why.topic), coalesce(' with the key ' || to_json(why.key), '')),
        'Messages that wait in their channels are not asked about: hawser pending --topic ' || v_word || ' has them';
      RETURN;
    END IF;
  END IF;
  SELECT o.* INTO q FROM hawser_data.queue AS o WHERE o.id = v_id AND o.later IS DISTINCT FROM 'nats' AND @is_own(o)@;
  v_is_later := @is_later(q)@;
  v_before := CASE WHEN @is_held(q)@ THEN (@waits_for(q)@) -> 0 END;
  v_before_id := v_before ->> 'id';
  v_before_dead := (SELECT d.id::text FROM hawser_data.dead_letters AS d WHERE d.job_id = v_before_id::bigint AND @is_own(d)@ LIMIT 1);
  v_failure := q.failures -> -1;
  -- Whatever a worker has given as its time.
  BEGIN
    v_failed_at := (v_failure ->> 'at')::timestamptz;
  EXCEPTION WHEN data_exception THEN
    v_failed_at := NULL;
  END;
  v_topic := q.topic;
  v_word := @shell_word(v_topic)@;
  -- What holds for workers: not what is set for the caller alone.
  SELECT coalesce((
           SELECT split_part(c.of, '=', 2)::boolean FROM pg_db_role_setting AS r, unnest(r.setconfig) AS c (of)
            WHERE r.setrole = 0 AND r.setdatabase IN (0, (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()))
              AND c.of LIKE 'default_transaction_read_only=%' ORDER BY r.setdatabase DESC LIMIT 1
         ), s.setting::boolean AND s.source NOT IN ('user', 'database', 'database user', 'client', 'session'))
    INTO v_only_reads FROM pg_settings AS s WHERE s.name = 'default_transaction_read_only';
  v_wait_s := ceil(extract(epoch FROM q.due_at - v_now));
  v_wait := CASE WHEN v_wait_s > 120 THEN round(v_wait_s / 60.0) || ' min' ELSE v_wait_s || ' s' END;

  RETURN QUERY
  WITH conditions AS MATERIALIZED (
    SELECT c.* FROM (
      SELECT 1 AS nth, 'waits' AS condition, q.id IS NOT NULL AS is_met, n.holder, n.since, n.explanation, n.remedy
        FROM (SELECT) AS o LEFT JOIN LATERAL (SELECT e.* FROM hawser.why_not_queued(v_id) AS e WHERE q.id IS NULL) AS n ON true
      UNION ALL
      SELECT 2, 'server_writes', NOT pg_is_in_recovery() AND NOT v_only_reads, current_database(), NULL,
             CASE WHEN pg_is_in_recovery() THEN 'the server is in recovery, or a standby' ELSE 'transactions only read, by default_transaction_read_only' END,
             CASE WHEN pg_is_in_recovery() THEN 'Workers need the primary server: wait for its recovery, or promote the standby'
                  ELSE format('BEGIN READ WRITE; ALTER DATABASE %I SET default_transaction_read_only = off; COMMIT', current_database()) END
      UNION ALL
      SELECT 3, 'not_held', NOT @is_held(q)@, v_before_id, NULL,
             format('it comes after the message %s, which %s', v_before_id, CASE v_before ->> 'state' WHEN 'waiting' THEN 'has not ended' WHEN 'dead' THEN 'is a dead letter' ELSE 'was cancelled or discarded' END),
             CASE v_before ->> 'state' WHEN 'waiting' THEN 'hawser why ' || v_before_id WHEN 'dead' THEN format('Mend the handler, then hawser dead retry %s, or hawser jobs cancel --flow %s', coalesce(v_before_dead, 'ID'), v_id)
               ELSE format('hawser jobs cancel --flow %s, and enqueue it again', v_id) END
      UNION ALL
      SELECT 4, 'due', v_wait_s IS NULL OR v_wait_s <= 0, NULL, v_failed_at,
             CASE WHEN q.attempts = 0 THEN format('it is due in %s', v_wait)
                  ELSE format('it has failed %s, last with %s: %s. It is tried again in %s', CASE q.attempts WHEN 1 THEN 'once' ELSE q.attempts || ' times' END, v_failure ->> 'code', v_failure ->> 'message', v_wait) END,
             CASE WHEN q.attempts = 0 THEN format('Wait, or hawser jobs cancel %s, and enqueue another one', v_id) ELSE 'Mend the handler: it is tried again by itself' END
      UNION ALL
      SELECT 5, 'role_may_enqueue', r.fault IS NULL, q.role, NULL, r.fault,
             CASE WHEN r.fault IS NULL THEN NULL WHEN to_regrole(quote_ident(q.role)) IS NOT NULL AND NOT hawser.may_enqueue(q.role, 'peer') THEN format('GRANT hawser_peer TO %I', q.role)
                  ELSE format('hawser jobs cancel %s, and enqueue another one as a role that may', v_id) END
        FROM (SELECT CASE WHEN v_is_later THEN hawser.role_fault(q.role, q.role_mark, 'peer') END AS fault) AS r
      UNION ALL
      SELECT 6, 'served', n.* FROM hawser.why_not_served(q.topic, ltrim(q.recipient, @QueueConstants.later_mark@), NULL) AS n
      UNION ALL
      SELECT 7, 'not_paused', s.topic IS NULL, s.paused_by, s.paused_at, 'the topic is paused', 'hawser topics resume ' || v_word
        FROM (SELECT) AS o LEFT JOIN hawser_data.topic_settings AS s ON s.topic = q.topic AND @is_paused(s)@
      UNION ALL
      SELECT 8, 'within_limits', n.* FROM hawser.why_limited(q.topic, v_id) AS n
      UNION ALL
      SELECT 9, 'first_of_key', h.id IS NULL, h.id::text, h.enqueued_at,
             format('the message %s %s, and comes first; %s', h.id,
               CASE WHEN k.key IS NULL THEN 'was sent in the same channel' ELSE format('has the key %s, too', to_json(k.key)) END, CASE WHEN w.name IS NULL THEN 'no worker has it' ELSE format('the worker %s has it', to_json(w.name)) END),
             'hawser why ' || h.id
        FROM (SELECT @user_key(q)@ AS key) AS k
        LEFT JOIN hawser_data.queue AS h ON q.key IS NOT NULL AND NOT v_is_later
         AND h.topic = q.topic AND h.recipient = q.recipient AND h.key = q.key AND h.role = q.role AND h.rank < q.rank AND h.rank = @first_of_key(q)@
        LEFT JOIN hawser_data.workers AS w ON w.id = h.worker AND w.gone_at IS NULL
      UNION ALL
      SELECT 10, 'free', n.* FROM hawser.why_taken(v_id) AS n
      UNION ALL
      SELECT 11, 'room', n.* FROM hawser.why_no_room(q.topic, ltrim(q.recipient, @QueueConstants.later_mark@)) AS n
    ) AS c
   -- Of one that does not wait, no more is asked.
   WHERE q.id IS NOT NULL OR c.nth <= 2
  ), told AS (
    SELECT * FROM conditions
     UNION ALL
    -- What nothing holds, a worker takes at once: one that has not been heard of since then may be gone, long before its lease ends.
    SELECT 6, 'served', n.*
      FROM (SELECT greatest(q.enqueued_at, q.due_at) AS ready_at WHERE (SELECT bool_and(a.is_met) FROM conditions AS a)) AS r
     CROSS JOIN LATERAL hawser.why_not_served(q.topic, ltrim(q.recipient, @QueueConstants.later_mark@), r.ready_at) AS n
     WHERE r.ready_at < v_now - interval '10 s' AND NOT n.is_met
  )
  SELECT DISTINCT ON (c.nth) v_id, c.nth, c.condition, c.is_met, CASE WHEN NOT c.is_met THEN c.holder END, CASE WHEN NOT c.is_met THEN c.since END,
         CASE WHEN NOT c.is_met THEN c.explanation END, CASE WHEN NOT c.is_met THEN c.remedy END
    FROM told AS c
   ORDER BY c.nth, c.is_met;
END
