DECLARE
  v_last record;
  v_beat_ms bigint := coalesce(pg_sequence_last_value('hawser.outbox_state_peer_beat_seq'), 1);
  v_now_ms CONSTANT bigint := extract(epoch FROM clock_timestamp()) * 1000;
BEGIN
  SELECT t.owner, t.pid INTO v_last FROM hawser.outbox_turns AS t WHERE t.sink = 1 ORDER BY t.turn DESC LIMIT 1;
  -- A beat of the future: the clock was set back.
  is_free := coalesce(v_last.owner, '') = '' OR v_now_ms - v_beat_ms NOT BETWEEN 0 AND @OutboxConstants.peer_relay_expiry_ms@;
  IF NOT is_free AND v_now_ms - v_beat_ms > @OutboxConstants.slow_look_ms@ + @OutboxConstants.peer_relay_watch_ms@ / 2 THEN
    -- It is late: has its session ended? Asked only then, because the answer takes longer the more sessions there are.
    is_free := NOT EXISTS (SELECT FROM pg_stat_get_activity(v_last.pid));
  END IF;
END
