SELECT l.id, l.kind, l.deliver_at, l.destination, l.key, l.message_id, octet_length(l.payload) AS payload_bytes, l.enqueued_at
  FROM hawser.outbox_later AS l
