#variable_conflict use_column
DECLARE
  -- One value, as an index is searched for it.
  v_now CONSTANT timestamptz := clock_timestamp();
  v_roles CONSTANT text[] := hawser.callers_roles();
  v_most CONSTANT integer := coalesce(max_rows, 10);
BEGIN
  IF coalesce(is_ready, false) THEN
    RETURN QUERY
    SELECT n.id, @job_state(n)@, @user_key(n)@, n.role, @worker_name(n)@, n.attempts::integer, n.enqueued_at, @job_due(n)@, (-(n.rank >> @QueueConstants.id_bits@))::integer, octet_length(n.payload)
      FROM (
        -- Roles take turns, and a priority orders the messages of one role.
        SELECT f.*, row_number() OVER (PARTITION BY f.role, ltrim(f.recipient, @QueueConstants.priority_mark@) ORDER BY f.rank >> @QueueConstants.id_bits@, f.due_at, f.rank) AS nth
          FROM hawser.queue_places(ARRAY[of_topic]) AS p
         CROSS JOIN LATERAL (
           (
             SELECT q.* FROM hawser_data.queue AS q
              WHERE q.topic = p.topic AND q.recipient = p.recipient AND q.role = p.role AND q.due_at IS NULL AND q.behind IS NULL AND @is_free(q)@ AND @is_own(q)@
              ORDER BY q.rank LIMIT v_most
           )
           UNION ALL
           (
             SELECT q.* FROM hawser_data.queue AS q
              WHERE q.topic = p.topic AND q.recipient = p.recipient AND q.role = p.role AND q.due_at <= v_now AND q.behind IS NULL AND @is_free(q)@ AND @is_own(q)@
              ORDER BY q.due_at, q.rank LIMIT v_most
           )
         ) AS f
         WHERE NOT @is_later(p)@ AND (v_roles IS NULL OR p.role = ANY (v_roles))
      ) AS n
     ORDER BY n.nth, n.rank LIMIT v_most;
    RETURN;
  END IF;
  -- In a place, those of one priority are in line by age.
  RETURN QUERY
  SELECT n.id, @job_state(n)@, @user_key(n)@, n.role, @worker_name(n)@, n.attempts::integer, n.enqueued_at, @job_due(n)@, (-(n.rank >> @QueueConstants.id_bits@))::integer, octet_length(n.payload)
    FROM hawser.job_places(of_topic) AS p
   CROSS JOIN LATERAL (
     SELECT q.* FROM hawser_data.queue AS q
      WHERE q.topic = of_topic AND q.recipient = p.recipient AND q.role = p.role
        AND q.rank >= p.lowest AND q.rank < p.lowest + (1::bigint << @QueueConstants.id_bits@) AND @is_own(q)@
      ORDER BY q.rank LIMIT v_most
   ) AS n
   WHERE p.recipient IS NOT NULL AND NOT @is_later(p)@
   ORDER BY n.enqueued_at, n.id LIMIT v_most;
END
