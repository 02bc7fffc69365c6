DECLARE
  v_last record;
  -- A beat of the future: the clock was set back.
  v_age_ms CONSTANT bigint := extract(epoch FROM clock_timestamp()) * 1000 - coalesce(pg_sequence_last_value('hawser_data.outbox_state_peer_beat_seq'), 1);
  -- A look that comes earlier than this shows nothing.
  v_late_ms CONSTANT integer := @OutboxConstants.peer_beat_ms@ + @OutboxConstants.slow_poll_ms@ / 2;
BEGIN
  SELECT t.owner, t.pid INTO v_last FROM hawser_data.outbox_turns AS t WHERE t.sink = 1 ORDER BY t.turn DESC LIMIT 1;
  is_free := coalesce(v_last.owner, '') = '' OR v_age_ms NOT BETWEEN 0 AND 5000;
  IF NOT is_free AND v_age_ms > v_late_ms THEN
    -- It is late: has its session ended? Asked only then, because the answer takes longer the more sessions there are.
    is_free := NOT EXISTS (SELECT FROM pg_stat_get_activity(v_last.pid));
  END IF;
  ask_in_ms := CASE
    WHEN is_free THEN 0
    ELSE 1 + CASE WHEN v_age_ms > v_late_ms THEN 5000 ELSE v_late_ms END - v_age_ms
  END;
END
