#variable_conflict use_column
BEGIN
  IF NOT EXISTS (SELECT FROM hawser_data.dead_letters AS l WHERE l.retry_requested) THEN
    RETURN;
  END IF;
  RETURN QUERY
  SELECT d.id, h.id, d.topic, d.payload, d.headers
    FROM hawser_bridge_data.nats_handlers AS h
   CROSS JOIN LATERAL (
      SELECT l.*, sum(octet_length(l.payload)) OVER (ORDER BY l.id) - octet_length(l.payload) AS bytes_before
        FROM hawser_data.dead_letters AS l
       WHERE l.handler_id = h.id AND l.origin = 'subscription' AND l.retry_requested AND l.role IS NOT NULL
       ORDER BY l.id LIMIT p_max_rows
    ) AS d
   WHERE h.kind <> 'responder' AND h.id <> ALL (p_busy) AND d.bytes_before <= p_max_bytes
   ORDER BY d.id;
END
