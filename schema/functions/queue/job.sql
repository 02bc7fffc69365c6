#variable_conflict use_column
DECLARE
  v_roles CONSTANT text[] := hawser.callers_roles();
BEGIN
  -- One statement, and so one snapshot: between two it could pass from one table to the next.
  SELECT f.* INTO state, topic, listener, attempts, enqueued_at, due_at, ended_at, duration_ms, progress, result, error_code, error_message, expires_at, waits_for, given_back, role, key, headers
    FROM (
      SELECT @job_state(n)@, n.topic, w.name, n.attempts::integer, n.enqueued_at,
             CASE WHEN w.id IS NULL THEN n.due_at END, NULL::timestamptz, NULL::bigint, n.progress, NULL, NULL, NULL, NULL::timestamptz,
             CASE n.later WHEN 'held' THEN @waits_for(n)@ END, n.given_back::integer, n.role, @user_key(n)@, n.headers
        FROM hawser_data.queue AS n
        LEFT JOIN hawser_data.workers AS w ON w.id = n.worker AND w.gone_at IS NULL
       WHERE n.id = job.id AND n.later IS DISTINCT FROM 'nats' AND @is_own(n)@
      UNION ALL
      (
      SELECT r.state, r.topic, r.listener, r.attempts, r.enqueued_at, NULL, r.ended_at, r.duration_ms, r.progress, r.result, r.error_code, r.error_message, r.expires_at, NULL,
             CASE r.state WHEN 'dead' THEN (SELECT d.given_back::integer FROM hawser_data.dead_letters AS d WHERE d.job_id = r.id LIMIT 1) END, r.role, r.key, r.headers
        FROM hawser_data.results AS r
       WHERE r.id = job.id AND r.expires_at > clock_timestamp() AND @is_own(r)@
       ORDER BY r.ended_at DESC LIMIT 1
      )
      UNION ALL
      -- Also of one of which nothing is kept.
      SELECT 'dead', d.topic, d.worker, d.attempts, d.enqueued_at, NULL, d.created_at, NULL, d.progress, NULL, d.error_code, d.error_message, NULL, NULL, d.given_back::integer, d.role, @header_key(d)@, d.headers
        FROM hawser_data.dead_letters AS d WHERE d.job_id = job.id AND @is_own(d)@
    ) AS f
   LIMIT 1;
  state := coalesce(state, 'unknown');
END
