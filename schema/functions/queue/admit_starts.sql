#variable_conflict use_column
DECLARE
  v_setting hawser_data.topic_settings;
  v_now bigint;
BEGIN
  most := 0;
  -- Nobody waits: a worker has other topics, too.
  SELECT s.* INTO v_setting FROM hawser_data.topic_settings AS s WHERE s.topic = p_topic FOR NO KEY UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  -- Behind the lock: of two takes, the later one counts what the other has started.
  at := clock_timestamp();
  v_now := extract(epoch FROM at) * 1000000;
  IF v_setting.full_at_us > v_now + v_setting.burst * v_setting.interval_us THEN
    -- The clock was set back.
    v_setting.full_at_us := v_now + v_setting.burst * v_setting.interval_us;
    UPDATE hawser_data.topic_settings AS s SET full_at_us = v_setting.full_at_us WHERE s.topic = p_topic;
  END IF;
  DELETE FROM hawser_data.topic_starts AS s
   WHERE s.topic = p_topic
     AND NOT EXISTS (
       SELECT FROM hawser_data.queue AS q
         JOIN hawser_data.workers AS w ON w.id = q.worker AND w.gone_at IS NULL
        WHERE q.topic = s.topic AND q.recipient = s.recipient AND q.role = s.role AND q.id = s.id AND q.worker = s.worker
     );
  most := greatest(0, least(
    1000,
    v_setting.running - CASE WHEN v_setting.running IS NOT NULL THEN (SELECT count(*) FROM hawser_data.topic_starts AS s WHERE s.topic = p_topic) END,
    v_setting.burst - ceil(greatest(0, v_setting.full_at_us - v_now)::numeric / v_setting.interval_us)
  ));
  per_key := v_setting.running_per_key;
  key_header := v_setting.key_header;
END
