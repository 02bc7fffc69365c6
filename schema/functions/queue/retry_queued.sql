#variable_conflict use_column
BEGIN
  RETURN QUERY
  WITH gone AS (
    DELETE FROM hawser_data.dead_letters AS d WHERE d.id = ANY (p_ids) AND d.origin = 'queue' RETURNING d.*
  ), put AS (
    -- Without a key, as its place in the order has passed; it keeps the header, and its id.
    INSERT INTO hawser_data.queue (topic, recipient, role, id, origin, payload, headers, awaited_as)
    SELECT g.topic, g.source, g.role, nextval('hawser_data.outbox_id_seq') + coalesce(g.number >> @QueueConstants.id_bits@ << @QueueConstants.id_bits@, 0),
           nullif(substring(g.enqueued_by FROM '^[^:]*:[^:]*'), ':'), g.payload,
           nullif(
             jsonb_path_query_array(g.headers, 'strict $[*] ? (@[0] != $name)', jsonb_build_object('name', @ProtocolConstants.message_origin_header@))
               || CASE WHEN g.message_id IS NULL AND jsonb_array_length(g.headers) < 256 AND g.place IS NOT NULL
                    THEN jsonb_build_array(jsonb_build_array(@ProtocolConstants.message_id_header@, g.place)) ELSE '[]' END,
             '[]'
           ), g.awaited_as
      FROM (
        SELECT d.topic, d.source, d.role, d.number, d.payload, d.headers, d.awaited_as, @OutboxConstants.peer_sender@ || '/' || d.epoch || '/' || d.number AS place,
               jsonb_path_query_first(d.headers, 'strict $[*] ? (@[0] == $name)', jsonb_build_object('name', @ProtocolConstants.message_origin_header@)) ->> 1 AS enqueued_by, jsonb_path_query_first(d.headers, 'strict $[*] ? (@[0] == $name)', jsonb_build_object('name', @ProtocolConstants.message_id_header@)) ->> 1 AS message_id
          FROM gone AS d ORDER BY d.id
      ) AS g
    RETURNING topic
  ), woken AS MATERIALIZED (
    SELECT hawser.wake_topics(array_agg(DISTINCT p.topic)) AS woken FROM put AS p
  )
  SELECT g.id FROM gone AS g, woken AS w WHERE w.woken ORDER BY g.id;
END
