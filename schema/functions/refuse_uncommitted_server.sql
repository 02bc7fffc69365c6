BEGIN
  IF EXISTS (SELECT FROM hawser.nats_foreign_servers() AS f WHERE f.uncommitted) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('server_uncommitted'),
      MESSAGE = 'the NATS server was defined or altered in this transaction, and the gateway cannot see that before COMMIT',
      HINT = (SELECT e.remedy FROM hawser.error_codes() AS e WHERE e.code = 'server_uncommitted');
  END IF;
  committed := true;
END
