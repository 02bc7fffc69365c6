#variable_conflict use_column
BEGIN
  RETURN QUERY
  WITH gone AS (
    DELETE FROM hawser_data.dead_letters AS d WHERE d.id = ANY (p_ids) AND d.origin = 'queue' RETURNING d.*
  ), put AS (
    -- It is the same job: with its id, what is kept of it, and those that come after it. It has no key, as its place in the order has
    -- passed, but the header of it, and is wanted whatever its age.
    INSERT INTO hawser_data.queue (topic, recipient, role, role_id, rank, id, origin, payload, headers, awaited_as, keep_ms, progress, message_id, channel_id)
    SELECT g.topic, g.source, g.role, g.role_id, g.next_id + coalesce(g.rank >> @QueueConstants.id_bits@ << @QueueConstants.id_bits@, 0),
           coalesce(g.job_id, g.next_id), nullif(substring(g.enqueued_by FROM '^[^:]*:[^:]*'), ':'), g.payload,
           nullif(
             jsonb_path_query_array(
               g.headers, 'strict $[*] ? (@[0] != $origin && @[0] != $expires)',
               jsonb_build_object('origin', @ProtocolConstants.message_origin_header@, 'expires', @ProtocolConstants.message_expires_header@)
             ),
             '[]'
           ), g.awaited_as, g.keep_ms, g.progress, CASE WHEN g.channel_id IS NOT NULL THEN g.message_id END, g.channel_id
      FROM (
        SELECT d.*, nextval('hawser_data.outbox_id_seq') AS next_id,
               jsonb_path_query_first(d.headers, 'strict $[*] ? (@[0] == $name)', jsonb_build_object('name', @ProtocolConstants.message_origin_header@)) ->> 1 AS enqueued_by
          FROM gone AS d ORDER BY d.id
      ) AS g
    RETURNING topic
  ), ended AS (
    -- What was kept of its end.
    DELETE FROM hawser_data.results AS r WHERE r.id = ANY (ARRAY(SELECT g.job_id FROM gone AS g)) AND r.state = 'dead'
  ), awaited AS (
    UPDATE hawser_data.flow_edges AS e SET ended = false WHERE e.before_id = ANY (ARRAY(SELECT g.awaited_as FROM gone AS g)) AND e.ended
  ), woken AS MATERIALIZED (
    SELECT hawser.wake_topics(array_agg(DISTINCT p.topic)) AS woken FROM put AS p
  )
  SELECT g.id FROM gone AS g, woken AS w WHERE w.woken ORDER BY g.id;
END
