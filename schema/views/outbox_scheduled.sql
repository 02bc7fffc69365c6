SELECT l.id, l.kind, l.deliver_at, l.destination,
       -- Callers chose these: they are for those who may read messages, as dead letters are, and not for those who only watch.
       CASE WHEN s.shows THEN l.key END AS key,
       -- Peers know it by a header, which is written with it.
       CASE WHEN s.shows THEN coalesce(
         CASE l.kind WHEN 'peer' THEN (
           SELECT h.pair ->> 1 FROM jsonb_array_elements(l.headers) AS h (pair) WHERE h.pair ->> 0 = @ProtocolConstants.message_id_header@ LIMIT 1
         ) END,
         l.message_id
       ) ELSE '' END AS message_id,
       octet_length(l.payload) AS payload_bytes, l.enqueued_at, l.priority
  FROM hawser_data.outbox_later AS l
 CROSS JOIN (SELECT has_table_privilege('hawser_data.dead_letters'::regclass, 'SELECT') AS shows) AS s
