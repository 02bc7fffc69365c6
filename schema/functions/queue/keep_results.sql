#variable_conflict use_column
DECLARE
  v_before CONSTANT integer := (SELECT s.keep_ms FROM hawser_data.topic_settings AS s WHERE s.topic = keep_results.topic);
  v_done boolean;
BEGIN
  v_done := hawser.commit_durably();
  kept := keep_results.keep_ms IS NOT NULL;
  IF kept THEN
    INSERT INTO hawser_data.topic_settings AS s (topic, keep_ms) VALUES (keep_results.topic, keep_results.keep_ms)
    ON CONFLICT (topic) DO UPDATE SET keep_ms = excluded.keep_ms;
  ELSE
    UPDATE hawser_data.topic_settings AS s SET keep_ms = NULL WHERE s.topic = keep_results.topic;
    DELETE FROM hawser_data.topic_settings AS s
     WHERE s.topic = keep_results.topic AND NOT @has_settings(s)@;
  END IF;
  IF keep_results.keep_ms IS DISTINCT FROM v_before THEN
    PERFORM hawser.record_act('keep_results', keep_results.topic, NULL, jsonb_build_object('keep_ms', keep_results.keep_ms, 'before_ms', v_before));
  END IF;
  PERFORM pg_notify(@QueueConstants.settings_channel@, keep_results.topic) WHERE pg_notification_queue_usage() < 0.9;
END
