SELECT l.id, l.kind, l.deliver_at, l.destination, l.key,
       -- Peers know it by a header, which is written with it.
       coalesce(
         CASE l.kind WHEN 'peer' THEN (
           SELECT h.pair ->> 1 FROM jsonb_array_elements(l.headers) AS h (pair) WHERE h.pair ->> 0 = @ProtocolConstants.message_id_header@ LIMIT 1
         ) END,
         l.message_id
       ) AS message_id,
       octet_length(l.payload) AS payload_bytes, l.enqueued_at
  FROM hawser_data.outbox_later AS l
