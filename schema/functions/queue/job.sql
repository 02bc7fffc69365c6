#variable_conflict use_column
DECLARE
  v_roles CONSTANT text[] := hawser.callers_roles();
BEGIN
  -- One statement, and so one snapshot: between two it could pass from one table to the next.
  SELECT f.* INTO state, topic, listener, attempts, enqueued_at, due_at, ended_at, duration_ms, progress, result, error_code, error_message, expires_at
    FROM (
      SELECT CASE WHEN w.id IS NULL THEN 'waiting' ELSE 'running' END, n.topic, w.name, n.attempts::integer, n.enqueued_at,
             CASE WHEN w.id IS NULL THEN n.due_at END, NULL::timestamptz, NULL::bigint, n.progress, NULL, NULL, NULL, NULL::timestamptz
        FROM (
          SELECT q.* FROM hawser_data.queue AS q WHERE q.first_id = job.id AND (v_roles IS NULL OR q.role = ANY (v_roles))
          UNION ALL
          SELECT q.*
            FROM hawser.queue_places('{}') AS p
           CROSS JOIN LATERAL (
             SELECT o.* FROM hawser_data.queue AS o
              WHERE o.topic = p.topic AND o.recipient = p.recipient AND o.role = p.role AND o.id = job.id
              LIMIT 1
           ) AS q
           WHERE v_roles IS NULL OR p.role = ANY (v_roles)
        ) AS n
        LEFT JOIN hawser_data.workers AS w ON w.id = n.worker AND w.gone_at IS NULL
      UNION ALL
      SELECT CASE l.kind WHEN 'held' THEN 'waiting' ELSE 'later' END, l.destination, NULL, 0, l.enqueued_at, l.deliver_at, NULL, NULL, NULL, NULL, NULL, NULL, NULL
        FROM hawser_data.outbox_later AS l WHERE l.id = job.id AND l.kind <> 'nats' AND (v_roles IS NULL OR l.role = ANY (v_roles))
      UNION ALL
      SELECT r.state, r.topic, r.listener, r.attempts, r.enqueued_at, NULL, r.ended_at, r.duration_ms, r.progress, r.result, r.error_code, r.error_message, r.expires_at
        FROM hawser_data.results AS r
       WHERE r.id = job.id AND r.expires_at > clock_timestamp() AND (v_roles IS NULL OR r.role = ANY (v_roles))
    ) AS f
   LIMIT 1;
  state := coalesce(state, 'unknown');
END
