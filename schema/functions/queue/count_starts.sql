#variable_conflict use_column
DECLARE
  v_setting hawser_data.topic_settings;
  v_now CONSTANT bigint := extract(epoch FROM p_at) * 1000000;
  v_after bigint;
BEGIN
  IF p_count > 0 THEN
    UPDATE hawser_data.topic_settings AS s
       SET full_at_us = coalesce(greatest(s.full_at_us, v_now) + p_count * s.interval_us, 0) WHERE s.topic = p_topic RETURNING s.* INTO v_setting;
  ELSE
    SELECT s.* INTO v_setting FROM hawser_data.topic_settings AS s WHERE s.topic = p_topic;
  END IF;
  wait_ms := 0;
  -- A worker knows when one of its own messages has ended; of others it learns by asking again.
  IF v_setting.running <= (SELECT count(*) FROM hawser_data.topic_starts AS s WHERE s.topic = p_topic) THEN
    wait_ms := @QueueConstants.limit_poll_ms@;
  END IF;
  -- Not before a start is possible, and for fast rates not before several are.
  v_after := v_setting.full_at_us - v_now
    - v_setting.interval_us * (v_setting.burst - least(v_setting.burst, greatest(1, @QueueConstants.least_wait_ms@ * 1000 / v_setting.interval_us)));
  IF v_setting.full_at_us - v_now > v_setting.interval_us * (v_setting.burst - 1) THEN
    wait_ms := greatest(wait_ms, least(ceil(v_after / 1000.0), @QueueConstants.most_wait_ms@));
  END IF;
END
