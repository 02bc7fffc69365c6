#variable_conflict use_column
BEGIN
  RETURN QUERY
  WITH asked AS (
    SELECT d.id, d.source, EXISTS (
      SELECT FROM hawser_bridge_data.nats_handlers AS h
      JOIN pg_type AS t ON t.typnamespace = to_regnamespace('hawser_run') AND t.typname = 'token_' || right(h.wrapper, @BridgeConstants.wrapper_random_length@)
      JOIN pg_proc AS w ON w.pronamespace = t.typnamespace AND w.proname = h.wrapper AND w.proargtypes[0] = t.oid
      WHERE h.id = d.handler_id
    ) AS known
    FROM hawser_data.dead_letters AS d
    WHERE d.id = ANY (p_ids) AND d.origin = 'subscription'
  ), marked AS (
    UPDATE hawser_data.dead_letters AS d SET retry_requested = true
    FROM asked AS a WHERE d.id = a.id AND a.known
    RETURNING d.id
  )
  SELECT a.id, a.known, a.source FROM asked AS a LEFT JOIN marked AS m ON m.id = a.id
  -- What was discarded, or handled, meanwhile is there no more.
  WHERE NOT a.known OR m.id IS NOT NULL
  ORDER BY a.id;
  IF EXISTS (SELECT FROM hawser_data.dead_letters AS d WHERE d.id = ANY (p_ids) AND d.retry_requested) THEN
    PERFORM pg_notify('hawser_nats_handlers', '{}') WHERE pg_notification_queue_usage() < 0.9;
  END IF;
END
