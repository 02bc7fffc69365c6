BEGIN
  IF p_kind IN ('nats', 'peer') IS NOT TRUE THEN
    RAISE EXCEPTION 'the kind % is neither nats nor peer', to_json(left(p_kind, 60)) USING ERRCODE = 'invalid_parameter_value';
  END IF;
  -- A turn reads what every role has enqueued for NATS.
  IF p_kind = 'nats' AND NOT pg_has_role(
    CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END, 'hawser_bridge', 'MEMBER'
  ) THEN
    RAISE EXCEPTION 'only a member of the role hawser_bridge may relay messages for NATS'
      USING ERRCODE = 'insufficient_privilege', HINT = 'hawser serve relays them, with the login that GRANT hawser_bridge names.';
  END IF;
  checked := true;
END
