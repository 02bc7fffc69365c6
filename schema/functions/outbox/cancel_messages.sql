#variable_conflict use_column
DECLARE
  v_roles CONSTANT text[] := hawser.callers_roles();
BEGIN
  RETURN QUERY
  WITH later AS MATERIALIZED (
    SELECT l.id, NULL AS topic, NULL AS recipient, l.role FROM hawser_data.outbox_later AS l
     WHERE l.id > p_after AND l.destination = p_destination AND (v_roles IS NULL OR l.role = ANY (v_roles))
       AND (p_key IS NULL OR l.key = p_key) AND (p_before IS NULL OR l.enqueued_at < p_before)
     ORDER BY l.id LIMIT p_most
       FOR UPDATE SKIP LOCKED
  ), chosen AS MATERIALIZED (
    SELECT * FROM later
    UNION ALL
    SELECT n.*
      FROM hawser.queue_places(ARRAY[p_destination]) AS p
     CROSS JOIN LATERAL (
       SELECT q.id, q.topic, q.recipient, q.role FROM hawser_data.queue AS q
        WHERE q.topic = p.topic AND q.recipient = p.recipient AND q.role = p.role AND q.id > p_after
          AND (p_key IS NULL OR q.key = p_key) AND (p_before IS NULL OR q.enqueued_at < p_before)
        ORDER BY q.id LIMIT p_most
     ) AS n
     WHERE v_roles IS NULL OR p.role = ANY (v_roles)
     ORDER BY id LIMIT p_most
  ), gone AS (
    DELETE FROM hawser_data.outbox_later AS l USING chosen AS c WHERE l.id = c.id AND c.topic IS NULL RETURNING l.*
  ), freed AS MATERIALIZED (
    SELECT hawser.end_marked(jsonb_agg(@later_marks_of(g)@), false) FROM gone AS g WHERE g.kind = 'held' OR @is_marked(g)@
  ), kept AS MATERIALIZED (
    SELECT hawser.keep_ended(jsonb_agg(@kept_later(g)@), 'cancelled', NULL, NULL) FROM gone AS g WHERE @later_keep_ms(g)@ IS NOT NULL
  ), queued AS (
    SELECT array_agg(c.topic) AS topics, array_agg(c.recipient) AS recipients, array_agg(c.role) AS roles, array_agg(c.id) AS ids
      FROM chosen AS c WHERE c.topic IS NOT NULL
  )
  SELECT g.id, 'cancelled' FROM gone AS g, freed, kept
  UNION ALL
  SELECT c.id, c.state FROM queued AS q CROSS JOIN LATERAL hawser.cancel_queued(q.topics, q.recipients, q.roles, q.ids) AS c
   ORDER BY 1;
END
