BEGIN
  -- Who has taken one out and leaves the transaction open keeps nobody waiting.
  DELETE FROM hawser_bridge_data.nats_handlers AS d WHERE d.id IN (
    SELECT h.id FROM hawser_bridge_data.nats_handlers AS h
    WHERE NOT EXISTS (
      SELECT FROM pg_type AS t JOIN pg_proc AS w ON w.pronamespace = t.typnamespace AND w.proargtypes[0] = t.oid
      WHERE t.typnamespace = to_regnamespace('hawser_run') AND t.typname = 'token_' || right(h.wrapper, @BridgeConstants.wrapper_random_length@)
        AND w.proname = h.wrapper AND w.pronargs = CASE h.kind WHEN 'responder' THEN @BridgeConstants.responder_arguments@ ELSE @BridgeConstants.subscription_arguments@ END
        -- Not one whose function was dropped while it was being made.
        AND NOT EXISTS (
          SELECT FROM pg_depend AS d
          WHERE d.classid = 'pg_proc'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_proc'::regclass
            AND NOT EXISTS (SELECT FROM pg_proc AS p WHERE p.oid = d.refobjid)))
    FOR UPDATE OF h SKIP LOCKED);
  GET DIAGNOSTICS pruned = ROW_COUNT;
  DELETE FROM hawser_bridge_data.stream_subscriptions AS d WHERE d.handler_id IN (
    SELECT s.handler_id FROM hawser_bridge_data.stream_subscriptions AS s
    WHERE NOT EXISTS (SELECT FROM hawser_bridge_data.nats_handlers AS h WHERE h.id = s.handler_id)
    FOR UPDATE OF s SKIP LOCKED);
END
