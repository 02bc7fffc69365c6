#variable_conflict use_column
DECLARE
  v_roles CONSTANT text[] := hawser.callers_roles();
  v_after CONSTANT bigint := coalesce(jobs.after, 9223372036854775807);
  v_most CONSTANT integer := coalesce(max_rows, 100);
  v_is_queued CONSTANT boolean := of_state IS NULL OR of_state IN ('waiting', 'running', 'later', 'held');
  v_is_dead CONSTANT boolean := of_state IS NULL OR of_state = 'dead';
  v_is_kept CONSTANT boolean := of_state IS NULL OR of_state IN ('dead', 'done', 'cancelled');
BEGIN
  IF NOT (v_is_queued OR v_is_dead OR v_is_kept) THEN
    PERFORM hawser.refuse_argument('hawser.jobs', 'of_state', to_json(of_state)::text, 'must be waiting, running, later, held, dead, done or cancelled');
  END IF;
  IF num_nonnulls(header_name, header_value) = 1 THEN
    PERFORM hawser.refuse_argument('hawser.jobs', 'header_name', 'NULL', 'must be given with header_value, and only with it');
  END IF;
  IF of_topic IS NULL THEN
    RETURN QUERY
    SELECT f.*, CASE f.state WHEN 'held' THEN @waits_for(f)@ END
      FROM (
        (
          SELECT q.id, q.topic, @job_state(q)@ AS state, @user_key(q)@, q.role, @worker_name(q)@, q.attempts::integer, q.enqueued_at, @job_due(q)@, NULL::timestamptz, NULL::bigint, NULL::text, q.id AS place, (-(q.rank >> @QueueConstants.id_bits@))::integer AS priority
            FROM hawser_data.queue AS q
           WHERE v_is_queued AND q.id < v_after AND q.later IS DISTINCT FROM 'nats' AND @is_own(q)@
             AND (of_state IS NULL OR @job_state(q)@ = of_state) AND (of_key IS NULL OR @user_key(q)@ = of_key) AND @has_header(q)@
           ORDER BY q.id DESC LIMIT v_most
        )
        UNION ALL
        (
          SELECT d.job_id AS id, d.topic, 'dead' AS state, @header_key(d)@, d.role, d.worker, d.attempts, d.enqueued_at, NULL, d.created_at, NULL, d.error_code, d.job_id, (-(d.rank >> @QueueConstants.id_bits@))::integer
            FROM hawser_data.dead_letters AS d
           WHERE v_is_dead AND d.job_id < v_after AND @is_own(d)@ AND (of_key IS NULL OR @header_key(d)@ = of_key) AND @has_header(d)@
           ORDER BY d.job_id DESC LIMIT v_most
        )
        UNION ALL
        (
          SELECT r.id, r.topic, r.state, r.key, r.role, r.listener, r.attempts, r.enqueued_at, NULL, r.ended_at, r.duration_ms, r.error_code, r.id, NULL
            FROM hawser_data.results AS r
           WHERE v_is_kept AND r.id < v_after AND @is_in_history(r)@ AND @is_own(r)@
             AND (of_state IS NULL OR r.state = of_state) AND (of_key IS NULL OR r.key = of_key) AND @has_header(r)@
           ORDER BY r.id DESC LIMIT v_most
        )
      ) AS f
     ORDER BY f.place DESC LIMIT v_most;
    RETURN;
  END IF;
  -- In the queue the place is the number of the rank: rows of a place are read from the last one on.
  RETURN QUERY
  WITH places AS MATERIALIZED (
    SELECT p.* FROM hawser.job_places(of_topic) AS p
  )
  SELECT f.*, CASE f.state WHEN 'held' THEN @waits_for(f)@ END
    FROM (
      SELECT n.*
        FROM places AS p
       CROSS JOIN LATERAL (
         (
           SELECT q.id, q.topic, @job_state(q)@ AS state, @user_key(q)@, q.role, @worker_name(q)@, q.attempts::integer, q.enqueued_at, @job_due(q)@, NULL::timestamptz, NULL::bigint, NULL::text, q.rank - p.lowest AS place, (-(q.rank >> @QueueConstants.id_bits@))::integer AS priority
             FROM hawser_data.queue AS q
            WHERE of_key IS NULL AND q.topic = of_topic AND q.recipient = p.recipient AND q.role = p.role
              AND q.rank >= p.lowest AND q.rank < p.lowest + least(v_after, 1::bigint << @QueueConstants.id_bits@)
              AND q.later IS DISTINCT FROM 'nats' AND @is_own(q)@ AND (of_state IS NULL OR @job_state(q)@ = of_state) AND @has_header(q)@
            ORDER BY q.rank DESC LIMIT v_most
         )
         UNION ALL
         (
           SELECT q.id, q.topic, @job_state(q)@ AS state, @user_key(q)@, q.role, @worker_name(q)@, q.attempts::integer, q.enqueued_at, @job_due(q)@, NULL, NULL, NULL, q.rank - p.lowest AS place, (-(q.rank >> @QueueConstants.id_bits@))::integer AS priority
             FROM hawser_data.queue AS q
            WHERE q.key = of_key AND q.channel_id IS NULL AND q.topic = of_topic AND q.recipient = p.recipient AND q.role = p.role
              AND q.rank >= p.lowest AND q.rank < p.lowest + least(v_after, 1::bigint << @QueueConstants.id_bits@)
              AND q.later IS DISTINCT FROM 'nats' AND @is_own(q)@ AND (of_state IS NULL OR @job_state(q)@ = of_state) AND @has_header(q)@
            ORDER BY q.rank DESC LIMIT v_most
         )
       ) AS n
       WHERE v_is_queued AND p.recipient IS NOT NULL
      UNION ALL
      (
        -- The key of what was sent is in its headers.
        SELECT q.id, q.topic, @job_state(q)@ AS state, @user_key(q)@, q.role, @worker_name(q)@, q.attempts::integer, q.enqueued_at, @job_due(q)@, NULL, NULL, NULL, n.place, (-(q.rank >> @QueueConstants.id_bits@))::integer AS priority
          FROM hawser_peer_data.channels AS m
         CROSS JOIN LATERAL (SELECT r.* FROM hawser_data.queue AS r WHERE r.channel_id = m.channel_id OFFSET 0) AS q
         CROSS JOIN LATERAL (SELECT q.rank - (q.rank >> @QueueConstants.id_bits@ << @QueueConstants.id_bits@) AS place) AS n
         WHERE v_is_queued AND of_key IS NOT NULL AND q.topic = of_topic AND n.place < v_after
           AND @is_own(q)@ AND (of_state IS NULL OR @job_state(q)@ = of_state) AND @user_key(q)@ = of_key AND @has_header(q)@
         ORDER BY n.place DESC LIMIT v_most
      )
      UNION ALL
      SELECT n.*
        FROM places AS p
       CROSS JOIN LATERAL (
         (
           SELECT d.job_id AS id, d.topic, 'dead' AS state, @header_key(d)@, d.role, d.worker, d.attempts, d.enqueued_at, NULL::timestamptz, d.created_at, NULL::bigint, d.error_code, d.job_id AS place, (-(d.rank >> @QueueConstants.id_bits@))::integer AS priority
             FROM hawser_data.dead_letters AS d
            WHERE v_is_dead AND d.topic = of_topic AND d.role = p.role AND d.job_id < v_after
              AND @is_own(d)@ AND (of_key IS NULL OR @header_key(d)@ = of_key) AND @has_header(d)@
            ORDER BY d.job_id DESC LIMIT v_most
         )
         UNION ALL
         (
           SELECT r.id, r.topic, r.state, r.key, r.role, r.listener, r.attempts, r.enqueued_at, NULL, r.ended_at, r.duration_ms, r.error_code, r.id AS place, NULL
             FROM hawser_data.results AS r
            WHERE v_is_kept AND of_key IS NULL AND r.topic = of_topic AND r.role = p.role AND r.id < v_after
              AND @is_in_history(r)@ AND @is_own(r)@ AND (of_state IS NULL OR r.state = of_state) AND @has_header(r)@
            ORDER BY r.id DESC LIMIT v_most
         )
         UNION ALL
         (
           SELECT r.id, r.topic, r.state, r.key, r.role, r.listener, r.attempts, r.enqueued_at, NULL, r.ended_at, r.duration_ms, r.error_code, r.id AS place, NULL
             FROM hawser_data.results AS r
            WHERE v_is_kept AND r.key = of_key AND r.topic = of_topic AND r.role = p.role AND r.id < v_after
              AND @is_in_history(r)@ AND @is_own(r)@ AND (of_state IS NULL OR r.state = of_state) AND @has_header(r)@
            ORDER BY r.id DESC LIMIT v_most
         )
       ) AS n
       WHERE p.recipient IS NULL
    ) AS f
   ORDER BY f.place DESC LIMIT v_most;
END
