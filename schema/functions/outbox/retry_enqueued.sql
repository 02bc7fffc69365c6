#variable_conflict use_column
DECLARE
  v_cluster CONSTANT bigint := hawser.present_cluster();
BEGIN
  RETURN QUERY
  WITH gone AS (
    DELETE FROM hawser_data.dead_letters AS d WHERE d.id = ANY (p_ids) AND d.origin = 'outbox' RETURNING d.*
  ), put AS (
    INSERT INTO hawser_data.outbox (segment, destination, payload, headers, message_id, to_stream, domain, cluster, role, role_id)
    SELECT (s.last_value - 1) % @OutboxConstants.segments@, g.topic, g.payload, (
             SELECT jsonb_object_agg(h.name, h.members)
               FROM (
                 SELECT p.pair ->> 0 AS name, jsonb_agg(p.pair -> 1 ORDER BY p.nth) AS members
                   FROM jsonb_array_elements(g.headers) WITH ORDINALITY AS p (pair, nth) GROUP BY 1
               ) AS h
           ), g.message_id, g.source <> 'core', nullif(nullif(g.source, 'core'), ''), v_cluster, g.role, g.role_id
      FROM gone AS g, hawser_data.outbox_state_segment_seq AS s
     ORDER BY g.id
  )
  SELECT g.id FROM gone AS g ORDER BY g.id;
  IF FOUND AND (SELECT a.last_value FROM hawser_data.outbox_state_asleep_seq AS a) = 2 THEN
    PERFORM pg_notify('hawser_outbox', '') WHERE pg_notification_queue_usage() < 0.9;
  END IF;
END
