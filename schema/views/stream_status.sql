SELECT s.name, s.stream, s.domain, format('%I.%I(%s)', h.function_schema, h.function_name, h.argument_types) AS function, s.filters,
       s.start, s.key_token, s.position AS done_to, s.lag, s.problem, s.paused, s.missing, s.missing_reason, s.missing_from, s.missing_to,
       s.missing_at, s.written_at
  FROM hawser_bridge_data.stream_subscriptions AS s
  JOIN hawser_bridge_data.nats_handlers AS h ON h.id = s.handler_id
 -- A subscription is there as long as the type of its wrapper is.
 WHERE EXISTS (
   SELECT FROM pg_catalog.pg_type AS t
    WHERE t.typnamespace = pg_catalog.to_regnamespace('hawser_run')
      AND t.typname = 'token_' || pg_catalog.right(h.wrapper, @BridgeConstants.wrapper_random_length@))
