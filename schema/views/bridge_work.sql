SELECT (SELECT count(*) FROM hawser_bridge_data.nats_handlers AS h WHERE h.kind = 'subscription') AS subscriptions,
       (
         SELECT min(s.saved_at)
           FROM hawser_bridge_data.nats_handlers AS h
          CROSS JOIN LATERAL (
            SELECT t.saved_at FROM hawser_bridge_data.saved_messages AS t WHERE t.handler_id = h.id ORDER BY t.id LIMIT 1
          ) AS s
       ) AS oldest_saved_at
