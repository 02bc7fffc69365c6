#variable_conflict use_column
DECLARE
  v_roles CONSTANT text[] := hawser.callers_roles();
BEGIN
  RETURN QUERY
  WITH later AS MATERIALIZED (
    SELECT l.id, NULL AS topic, NULL AS recipient, l.role, l.id AS rank FROM hawser_data.outbox_later AS l
     WHERE l.id > p_after AND l.destination = p_destination AND (l.kind = 'nats') = (p_kind = 'nats') AND @is_own(l)@
       AND (p_key IS NULL OR l.key = p_key) AND (p_before IS NULL OR l.enqueued_at < p_before)
     ORDER BY l.id LIMIT p_most
       FOR UPDATE SKIP LOCKED
  ), chosen AS MATERIALIZED (
    SELECT * FROM later
    UNION ALL
    SELECT n.*
      FROM hawser.queue_places(ARRAY[p_destination]) AS p
     CROSS JOIN LATERAL (
       SELECT q.id, q.topic, q.recipient, q.role, q.rank FROM hawser_data.queue AS q
        WHERE q.topic = p.topic AND q.recipient = p.recipient AND q.role = p.role AND q.rank > p_after AND @is_own(q)@
          AND (p_key IS NULL OR q.key = p_key) AND (p_before IS NULL OR q.enqueued_at < p_before)
        ORDER BY q.rank LIMIT p_most
     ) AS n
     WHERE p_kind = 'peer' AND (v_roles IS NULL OR p.role = ANY (v_roles))
     ORDER BY rank LIMIT p_most
  ), gone AS (
    DELETE FROM hawser_data.outbox_later AS l USING chosen AS c WHERE l.id = c.id AND c.topic IS NULL RETURNING l.*
  ), freed AS MATERIALIZED (
    SELECT hawser.end_marked(jsonb_agg(@later_marks_of(g)@), false) FROM gone AS g WHERE g.kind = 'held' OR @is_marked(g)@
  ), kept AS MATERIALIZED (
    SELECT hawser.keep_ended(jsonb_agg(@kept_later(g)@), 'cancelled', NULL, NULL) FROM gone AS g WHERE @later_keep_ms(g)@ IS NOT NULL
  ), queued AS (
    SELECT array_agg(c.topic) AS topics, array_agg(c.recipient) AS recipients, array_agg(c.role) AS roles, array_agg(c.rank) AS ranks
      FROM chosen AS c WHERE c.topic IS NOT NULL
  ), asked AS MATERIALIZED (
    SELECT c.rank, c.state FROM queued AS q CROSS JOIN LATERAL hawser.cancel_queued(q.topics, q.recipients, q.roles, q.ranks) AS c
  )
  SELECT g.id, 'cancelled', g.id FROM gone AS g, freed, kept
  UNION ALL
  -- Also those that workers have ended meanwhile: a page with fewer than it may have is the last one.
  SELECT c.id, coalesce(a.state, 'not_waiting'), c.rank FROM chosen AS c LEFT JOIN asked AS a ON a.rank = c.rank WHERE c.topic IS NOT NULL
   ORDER BY 3;
END
