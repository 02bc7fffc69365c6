BEGIN
  -- What this transaction wrote has the time of its start, whichever way it went.
  IF EXISTS (SELECT FROM hawser.nats_foreign_servers() AS f WHERE f.uncommitted)
    OR EXISTS (SELECT FROM hawser_bridge_data.nats_server AS s WHERE s.changed_at = now())
    -- One that is gone, and the gateway has not followed: that was this transaction, if it has written anything.
    OR (
      pg_current_xact_id_if_assigned() IS NOT NULL
      AND EXISTS (
        SELECT FROM hawser_bridge_data.nats_server AS s
        WHERE s.seen_server_name IS NOT NULL AND NOT EXISTS (SELECT FROM hawser.nats_foreign_servers())
      )
    )
  THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('server_uncommitted'),
      MESSAGE = 'the NATS server was defined or altered in this transaction, and the gateway cannot see that before COMMIT',
      HINT = (SELECT e.remedy FROM hawser.error_codes() AS e WHERE e.code = 'server_uncommitted');
  END IF;
  -- Only what adds or removes a handler locks its table so, until the end of the transaction or of a savepoint rolled back.
  IF EXISTS (
    SELECT FROM pg_locks AS l
    WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.mode = 'RowExclusiveLock'
      AND l.relation = 'hawser_bridge_data.nats_handlers'::regclass
  ) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('server_uncommitted'),
      MESSAGE = 'subscriptions or responders were changed in this transaction, and that takes effect only after COMMIT',
      HINT = (SELECT e.remedy FROM hawser.error_codes() AS e WHERE e.code = 'server_uncommitted');
  END IF;
  committed := true;
END
