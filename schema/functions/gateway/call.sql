-- Sends one call to the gateway and returns its answer. The functions that return at most one value send theirs themselves
-- where the connection is there and well, in the same steps (codegen/gateway/sql-function.ts). One named connection for each
-- database session, opened on first use. It belongs to the session and not to a role: so the schema of dblink is closed to
-- everybody but the owner of these functions.
--
-- Always dblink() and never dblink_exec(), which leaves the connection unusable when it is cancelled.
DECLARE
  -- What dblink knows the connection by.
  session_name CONSTANT text := 'hawser';
  tries CONSTANT integer := 2;
  is_open boolean := coalesce(session_name = ANY (@dblink@.dblink_get_connections()), false);
  answer text;
  failure text;
  failure_detail text;
  failure_hint text;
  now_ms bigint;
BEGIN
  FOR attempt IN 1..tries LOOP
    IF is_open THEN
      -- Looked at here, without a round trip. After an ordinary error of the gateway its message stays, so then a ping
      -- decides. Nothing of the call has been sent yet: connecting anew is safe. Twice, because a gateway that stops says
      -- so before it closes the connection: the first look reads what it said, and only the second one finds the end.
      IF @dblink@.dblink_is_busy(session_name) <> 0 OR @dblink@.dblink_is_busy(session_name) <> 0 THEN
        is_open := false;
      ELSIF @dblink@.dblink_error_message(session_name) <> 'OK' THEN
        BEGIN
          PERFORM FROM @dblink@.dblink(session_name, text 'Ping') AS ping (r text);
        EXCEPTION
          WHEN OTHERS THEN
            is_open := false;
        END;
      END IF;
      IF NOT is_open THEN
        PERFORM @dblink@.dblink_disconnect(session_name);
      END IF;
    END IF;
    IF NOT is_open THEN
      BEGIN
        PERFORM @dblink@.dblink_connect(session_name, hawser.gateway_conninfo());
      EXCEPTION
        -- 2F003: the server asked for no password, so it is not the gateway.
        WHEN sqlclient_unable_to_establish_sqlconnection OR SQLSTATE '2F003' THEN
          GET STACKED DIAGNOSTICS failure = MESSAGE_TEXT, failure_detail = PG_EXCEPTION_DETAIL;
          now_ms := extract(epoch FROM clock_timestamp()) * 1000;
          -- Only Postgres knows of a call that did not arrive. The caller's transaction rolls back, and a sequence does not.
          -- It is noted once a second at most, for all sessions together.
          IF NOT current_setting('transaction_read_only')::boolean
            AND abs(now_ms - coalesce(pg_sequence_last_value('hawser_data.gateway_state_unreached_ms_seq'), 0)) >= 1000
          THEN
            PERFORM setval('hawser_data.gateway_state_unreached_ms_seq', now_ms);
          END IF;
          RAISE EXCEPTION USING
            ERRCODE = hawser.error_sqlstate('gateway_unavailable'),
            MESSAGE = 'the gateway cannot be reached, and nothing was sent',
            DETAIL = concat_ws(': ', failure, nullif(failure_detail, '')),
            HINT = (SELECT e.remedy FROM hawser.error_codes() AS e WHERE e.code = 'gateway_unavailable');
      END;
    END IF;
    BEGIN
      SELECT called.r INTO answer FROM @dblink@.dblink(session_name, p_query) AS called (r text);
      RETURN answer;
    EXCEPTION
      -- A cancelled dblink() still waits for the answer that is owed. Cancelled in that, too, it leaves the answer behind.
      WHEN query_canceled THEN
        PERFORM @dblink@.dblink_disconnect(session_name);
        RAISE;
      -- The gateway is being stopped, and says that it has not begun the call: another one, or its successor, may.
      WHEN admin_shutdown THEN
        PERFORM @dblink@.dblink_disconnect(session_name);
        IF attempt = tries THEN
          RAISE;
        END IF;
        is_open := false;
      -- Class 08 as a whole. An error that the gateway has answered has a hint; a broken connection has none.
      WHEN connection_exception THEN
        GET STACKED DIAGNOSTICS failure = MESSAGE_TEXT, failure_hint = PG_EXCEPTION_HINT;
        IF failure_hint <> '' THEN
          RAISE;
        END IF;
        PERFORM hawser.gateway_lost(failure, tries - attempt);
        is_open := false;
    END;
  END LOOP;
END
