BEGIN
  -- A gateway that ends a session answers the call under way, sends a notification, which stays here, and carries out
  -- nothing more. So a call without an answer was sent too late, and was not carried out.
  IF tries_left > 0 AND EXISTS (SELECT FROM @dblink@.dblink_get_notify('hawser')) THEN
    PERFORM @dblink@.dblink_disconnect('hawser');
    RETURN;
  END IF;
  RAISE EXCEPTION USING
    ERRCODE = hawser.error_sqlstate('outcome_unknown'),
    MESSAGE = 'the connection to the gateway broke, and the outcome of the call is unknown',
    DETAIL = failure,
    HINT = (SELECT e.remedy FROM hawser.error_codes() AS e WHERE e.code = 'outcome_unknown');
END
