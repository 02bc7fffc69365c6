#variable_conflict use_column
BEGIN
  RETURN QUERY
  WITH asked AS MATERIALIZED (
    SELECT d.id, r.rolname::text AS role, r.oid::bigint AS role_id
      FROM hawser_data.dead_letters AS d
      LEFT JOIN hawser_bridge_data.nats_handlers AS h ON h.id = d.handler_id AND h.kind <> 'responder'
      LEFT JOIN LATERAL (
        SELECT w.proowner FROM pg_type AS t JOIN pg_proc AS w ON w.pronamespace = t.typnamespace AND w.proname = h.wrapper AND w.proargtypes[0] = t.oid
         WHERE t.typnamespace = to_regnamespace('hawser_run') AND t.typname = 'token_' || right(h.wrapper, @BridgeConstants.wrapper_random_length@)
         ORDER BY w.oid LIMIT 1
      ) AS o ON true
      LEFT JOIN pg_roles AS r ON r.oid = o.proowner
     WHERE d.id = ANY (p_ids) AND d.origin = 'subscription'
  ), gone AS (
    DELETE FROM hawser_data.dead_letters AS d USING asked AS a WHERE d.id = a.id AND a.role IS NOT NULL
    RETURNING d.*, a.role AS runs_as, a.role_id AS runs_as_id
  ), put AS (
    -- One after another, in the order of the dead letters: all have one key. If it fails again, it is the same dead letter.
    INSERT INTO hawser_data.queue (topic, role, role_id, rank, id, key, payload, headers)
    SELECT @QueueConstants.function_prefix@ || g.handler_id, g.runs_as, g.runs_as_id, g.next_id, g.next_id, 'retried', g.payload,
           jsonb_build_array(jsonb_build_array(@QueueConstants.function_header@, json_build_object(
             'subject', g.topic, 'id', 'dead-letter-' || g.id, 'attempts', g.attempts, 'headers', (
               SELECT json_object_agg(n.name, n.members ORDER BY n.nth)
                 FROM (
                   SELECT e.pair ->> 0 AS name, json_agg(e.pair -> 1 ORDER BY e.nth) AS members, min(e.nth) AS nth
                     FROM jsonb_array_elements(g.headers) WITH ORDINALITY AS e (pair, nth) GROUP BY 1
                 ) AS n
             )
           )::text))
      FROM (SELECT d.*, nextval('hawser_data.outbox_id_seq') AS next_id FROM gone AS d ORDER BY d.id) AS g
    RETURNING topic
  ), woken AS MATERIALIZED (
    SELECT hawser.wake_topics(array_agg(DISTINCT p.topic)) AS woken FROM put AS p
  )
  SELECT a.id, a.role IS NOT NULL FROM asked AS a, woken AS w WHERE a.role IS NULL OR w.woken ORDER BY a.id;
END
