/** SQL of a subquery with all that is enqueued and due: for NATS in the outbox, for peers in the queue. */
export const enqueuedMessages = `(
  SELECT 'nats' AS kind, id, role, destination, payload, headers, key, message_id, to_stream, domain, NULL AS origin, false AS to_all
    FROM hawser_data.outbox
  UNION ALL
  SELECT 'peer', id, role, topic, payload, headers, key, NULL, false, NULL, origin, to_all FROM hawser_data.queue
)`;
