#variable_conflict use_column
DECLARE
  v_roles CONSTANT text[] := hawser.callers_roles();
BEGIN
  -- One statement, and so one snapshot: between two it could pass from one table to the next.
  SELECT f.* INTO state, topic, listener, attempts, enqueued_at, due_at, ended_at, duration_ms, progress, result, error_code, error_message, expires_at, waits_for, given_back, role
    FROM (
      SELECT CASE WHEN w.id IS NULL THEN 'waiting' ELSE 'running' END, n.topic, w.name, n.attempts::integer, n.enqueued_at,
             CASE WHEN w.id IS NULL THEN n.due_at END, NULL::timestamptz, NULL::bigint, n.progress, NULL, NULL, NULL, NULL::timestamptz, NULL::jsonb, n.given_back::integer, n.role
        FROM hawser_data.queue AS n
        LEFT JOIN hawser_data.workers AS w ON w.id = n.worker AND w.gone_at IS NULL
       WHERE n.id = job.id AND @is_own(n)@
      UNION ALL
      -- One that is held without a due time of its own has that of its enqueue.
      SELECT CASE l.kind WHEN 'held' THEN 'held' ELSE 'later' END, l.destination, NULL, 0, l.enqueued_at,
             CASE WHEN l.kind <> 'held' OR l.deliver_at > l.enqueued_at THEN l.deliver_at END, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
             CASE l.kind WHEN 'held' THEN @waits_for(l)@ END, NULL, l.role
        FROM hawser_data.outbox_later AS l WHERE l.id = job.id AND l.kind <> 'nats' AND @is_own(l)@
      UNION ALL
      SELECT r.state, r.topic, r.listener, r.attempts, r.enqueued_at, NULL, r.ended_at, r.duration_ms, r.progress, r.result, r.error_code, r.error_message, r.expires_at, NULL,
             CASE r.state WHEN 'dead' THEN (SELECT d.given_back::integer FROM hawser_data.dead_letters AS d WHERE d.job_id = r.id LIMIT 1) END, r.role
        FROM hawser_data.results AS r
       WHERE r.id = job.id AND r.expires_at > clock_timestamp() AND @is_own(r)@
      UNION ALL
      -- Also of one of which nothing is kept.
      SELECT 'dead', d.topic, d.worker, d.attempts, d.enqueued_at, NULL, d.created_at, NULL, d.progress, NULL, d.error_code, d.error_message, NULL, NULL, d.given_back::integer, d.role
        FROM hawser_data.dead_letters AS d WHERE d.job_id = job.id AND @is_own(d)@
    ) AS f
   LIMIT 1;
  state := coalesce(state, 'unknown');
END
