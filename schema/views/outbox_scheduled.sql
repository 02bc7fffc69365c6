SELECT l.id, l.kind, l.deliver_at, l.destination,
       -- Callers chose these: they are for those who may read messages, as dead letters are, and not for those who only watch.
       CASE WHEN s.shows THEN l.key END AS key,
       -- Peers know it by a header, which is written with it.
       CASE WHEN s.shows THEN coalesce(
         CASE WHEN l.kind <> 'nats' THEN (
           SELECT h.pair ->> 1 FROM jsonb_array_elements(l.headers) AS h (pair) WHERE h.pair ->> 0 = @ProtocolConstants.message_id_header@ LIMIT 1
         ) END,
         l.message_id
       ) ELSE '' END AS message_id,
       octet_length(l.payload) AS payload_bytes, l.enqueued_at, l.priority,
       CASE l.kind WHEN 'held' THEN (SELECT count(*)::integer FROM hawser_data.flow_edges AS e WHERE e.after_id = l.id) ELSE 0 END AS held_for,
       CASE l.kind WHEN 'held' THEN @waits_for(l)@ END AS waits_for
  FROM hawser_data.outbox_later AS l
 CROSS JOIN (SELECT has_table_privilege('hawser.dead_letters'::regclass, 'SELECT') AS shows) AS s
