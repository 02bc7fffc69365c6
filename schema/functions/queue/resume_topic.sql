#variable_conflict use_column
DECLARE
  v_done boolean;
BEGIN
  v_done := hawser.commit_durably();
  UPDATE hawser_data.topic_settings AS s SET paused_at = NULL, paused_by = NULL WHERE s.topic = resume_topic.topic AND s.paused_at IS NOT NULL;
  resumed := FOUND;
  DELETE FROM hawser_data.topic_settings AS s
   WHERE s.topic = resume_topic.topic AND NOT @has_settings(s)@;
  IF resumed THEN
    PERFORM hawser.record_act('resume', resume_topic.topic, NULL, NULL);
    PERFORM pg_notify(@QueueConstants.settings_channel@, resume_topic.topic) WHERE pg_notification_queue_usage() < 0.9;
  END IF;
END
