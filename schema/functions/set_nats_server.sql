DECLARE
  v_before CONSTANT jsonb := (SELECT s.options FROM hawser_bridge_data.nats_server AS s WHERE s.id = 1);
BEGIN
  IF p_options IS NOT NULL THEN
    PERFORM hawser.nats_server_options_check(p_options, 'whole');
    -- A foreign server that is there counts as seen: only what is done to it from now on replaces this.
    UPDATE hawser_bridge_data.nats_server AS s
    SET
      options = p_options,
      server_name = NULL,
      seen_server_name = f.server_name,
      seen_options = f.options,
      changed_at = now()
    FROM (SELECT) AS one LEFT JOIN LATERAL (SELECT * FROM hawser.nats_foreign_servers() LIMIT 1) AS f ON true
    WHERE s.id = 1;
  ELSE
    -- What a foreign server says counts again.
    UPDATE hawser_bridge_data.nats_server AS s
    SET options = NULL, server_name = NULL, seen_server_name = NULL, seen_options = NULL, changed_at = now()
    WHERE s.id = 1;
    PERFORM hawser.follow_nats_server();
  END IF;
  SELECT s.options IS NOT NULL INTO STRICT defined FROM hawser_bridge_data.nats_server AS s WHERE s.id = 1;
  -- Without the options, which may have secrets.
  IF EXISTS (SELECT FROM hawser_bridge_data.nats_server AS s WHERE s.id = 1 AND s.options IS DISTINCT FROM v_before) THEN
    PERFORM hawser.record_act('set_nats_server', NULL, NULL, jsonb_build_object('defined', defined));
  END IF;
END
