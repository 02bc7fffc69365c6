DECLARE
  v_done boolean;
BEGIN
  v_done := hawser.check_places(ARRAY[p_topic]);
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  PERFORM FROM hawser_data.queue AS q
    WHERE q.topic = p_topic AND q.recipient = p_recipient AND q.role = p_role AND q.rank = p_rank AND q.worker = p_worker AND q.keep_ms IS NOT NULL
      FOR NO KEY UPDATE SKIP LOCKED;
  written := FOUND;
  IF written THEN
    UPDATE hawser_data.queue AS q SET progress = p_progress::json::text
     WHERE q.topic = p_topic AND q.recipient = p_recipient AND q.role = p_role AND q.rank = p_rank;
  END IF;
END
