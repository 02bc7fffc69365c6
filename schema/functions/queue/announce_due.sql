DECLARE
  v_in_ms CONSTANT numeric := extract(epoch FROM least(p_due_at, clock_timestamp() + interval '1 day') - clock_timestamp()) * 1000;
  -- Whole intervals, so that those of one transaction are mostly one notification.
  v_polls CONSTANT integer := greatest(0, floor(v_in_ms / @ScheduleConstants.poll_ms@));
BEGIN
  -- Polls find what is due later. A server with prepared transactions, which may not notify, is polled at this interval by all.
  IF v_polls = 0 OR v_in_ms < @QueueConstants.idle_beat_ms@ AND current_setting('max_prepared_transactions') = '0' THEN
    PERFORM pg_notify(@ScheduleConstants.channel@, CASE v_polls WHEN 0 THEN '' ELSE (v_polls * @ScheduleConstants.poll_ms@)::text END) WHERE pg_notification_queue_usage() < 0.9;
  END IF;
  announced := true;
END
