#variable_conflict use_column
DECLARE
  v_role CONSTANT text := CASE current_setting('role') WHEN 'none' THEN session_user::text ELSE current_setting('role') END;
  v_done boolean;
BEGIN
  v_done := hawser.commit_durably();
  INSERT INTO hawser_data.topic_settings AS s (topic, paused_at, paused_by) VALUES (pause_topic.topic, clock_timestamp(), v_role)
  ON CONFLICT (topic) DO UPDATE SET paused_at = excluded.paused_at, paused_by = excluded.paused_by WHERE s.paused_at IS NULL
  RETURNING s.paused_at, s.paused_by INTO paused_at, paused_by;
  changed := FOUND;
  IF NOT changed THEN
    SELECT s.paused_at, s.paused_by INTO paused_at, paused_by FROM hawser_data.topic_settings AS s WHERE s.topic = pause_topic.topic;
    RETURN;
  END IF;
  PERFORM hawser.record_act('pause', pause_topic.topic, NULL, NULL);
  PERFORM pg_notify(@QueueConstants.settings_channel@, pause_topic.topic) WHERE pg_notification_queue_usage() < 0.9;
END
