#variable_conflict use_column
DECLARE
  v_topics text[];
  v_done boolean;
BEGIN
  RETURN QUERY
  WITH gone AS (
    DELETE FROM hawser_data.dead_letters AS d WHERE d.id = ANY (p_ids) AND d.origin = 'queue' RETURNING d.*
  ), put AS (
    -- Without a key, as its place in the order has passed; it keeps the header.
    INSERT INTO hawser_data.queue (topic, recipient, role, id, origin, payload, headers)
    SELECT g.topic, g.source, g.role, nextval('hawser_data.outbox_id_seq'), g.origin, g.payload, g.headers
      FROM (
        SELECT d.id, d.topic, d.source, d.role, d.payload,
               nullif(jsonb_path_query_array(d.headers, 'strict $[*] ? (@[0] != $name)', jsonb_build_object('name', @ProtocolConstants.message_origin_header@)), '[]') AS headers,
               nullif(substring(jsonb_path_query_first(d.headers, 'strict $[*] ? (@[0] == $name)', jsonb_build_object('name', @ProtocolConstants.message_origin_header@)) ->> 1 FROM '^[^:]*:[^:]*'), ':') AS origin
          FROM gone AS d ORDER BY d.id
      ) AS g
    RETURNING topic
  ), woken AS MATERIALIZED (
    SELECT hawser.wake_topics(array_agg(DISTINCT p.topic)) AS woken FROM put AS p
  )
  SELECT g.id FROM gone AS g, woken AS w WHERE w.woken ORDER BY g.id;
END
