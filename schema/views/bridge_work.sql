SELECT (SELECT count(*) FROM hawser_bridge_data.nats_handlers AS h WHERE h.kind = 'subscription') AS subscriptions,
       (
         SELECT min(s.saved_at)
           FROM hawser_bridge_data.nats_handlers AS h
          CROSS JOIN LATERAL (
            SELECT t.saved_at FROM hawser_bridge_data.saved_messages AS t WHERE t.handler_id = h.id ORDER BY t.id LIMIT 1
          ) AS s
       ) AS oldest_saved_at,
       (
         SELECT min(g.certificate_ends_at) FROM hawser_bridge_data.gateways AS g WHERE g.seen_at > now() - @GatewayConstants.gateway_stale_ms@ * interval '1 ms'
       ) AS certificate_ends_at
