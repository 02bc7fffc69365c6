#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := clock_timestamp();
  v_message hawser_data.queue;
  v_unique hawser_data.unique_keys;
  v_has_key boolean;
  -- A transaction relies on it that has not ended.
  v_is_held boolean;
  v_done boolean;
BEGIN
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  SELECT q.* INTO v_message FROM hawser_data.queue AS q
   WHERE q.topic = p_topic AND q.recipient = p_recipient AND q.role = p_role AND q.rank = p_rank AND q.worker = p_worker;
  begins := FOUND;
  IF NOT begins THEN
    RETURN;
  END IF;
  IF EXISTS (
    SELECT FROM hawser_data.cancellations AS c WHERE c.topic = p_topic AND c.recipient = p_recipient AND c.role = p_role AND c.rank = p_rank
  ) THEN
    -- Nor is it replaced with one that is due later: who cancelled it was told that it ends.
    begins := false;
    v_done := hawser.end_cancelled(p_worker, ARRAY[p_rank]) IS NULL;
    RETURN;
  END IF;
  SELECT u.* INTO v_unique FROM hawser_data.unique_keys AS u
   WHERE u.role = p_role AND u.topic = p_topic AND u.unique_key = v_message.unique_key AND u.id = v_message.id
     FOR UPDATE SKIP LOCKED;
  v_has_key := FOUND;
  PERFORM FROM hawser_data.unique_locks AS l WHERE l.id = v_message.id FOR UPDATE SKIP LOCKED;
  v_is_held := NOT FOUND AND EXISTS (SELECT FROM hawser_data.unique_locks AS l WHERE l.id = v_message.id)
    OR NOT v_has_key AND EXISTS (
      SELECT FROM hawser_data.unique_keys AS u
       WHERE u.role = p_role AND u.topic = p_topic AND u.unique_key = v_message.unique_key AND u.id = v_message.id
    );
  -- One that was held for long gives its key away, or transactions that follow each other could hold it for ever.
  IF v_has_key AND (NOT v_is_held OR v_message.due_at IS NOT NULL AND v_message.enqueued_at < v_now - interval '2 seconds') THEN
    IF v_unique.due_at > v_now THEN
      -- It was replaced with one that is due later.
      begins := false;
      UPDATE hawser_data.queue AS q
         SET recipient = @QueueConstants.later_mark@ || p_recipient, later = 'peer', later_xid = pg_current_xact_id(), due_at = v_unique.due_at, role_mark = m.mark,
             worker = NULL, attempts = 0, failures = NULL, payload = v_unique.payload, headers = v_unique.headers
        FROM hawser.role_mark(p_role, 'peer') AS m
       WHERE q.topic = p_topic AND q.recipient = p_recipient AND q.role = p_role AND q.rank = p_rank;
      UPDATE hawser_data.unique_keys AS u SET payload = NULL, headers = NULL, due_at = NULL
       WHERE u.role = p_role AND u.topic = p_topic AND u.unique_key = v_message.unique_key;
      PERFORM pg_notify(@ScheduleConstants.channel@, '') WHERE pg_notification_queue_usage() < 0.9;
      RETURN;
    END IF;
    IF v_unique.payload IS NOT NULL THEN
      v_message.payload := v_unique.payload;
      v_message.headers := v_unique.headers;
      payload := v_message.payload;
      headers := @headers_of(v_message)@;
      UPDATE hawser_data.queue AS q SET payload = v_message.payload, headers = v_message.headers
       WHERE q.topic = p_topic AND q.recipient = p_recipient AND q.role = p_role AND q.rank = p_rank;
    END IF;
    IF v_unique.while_running THEN
      UPDATE hawser_data.unique_keys AS u SET has_begun = true, payload = NULL, headers = NULL, due_at = NULL
       WHERE u.role = p_role AND u.topic = p_topic AND u.unique_key = v_message.unique_key;
    ELSE
      DELETE FROM hawser_data.unique_keys AS u WHERE u.role = p_role AND u.topic = p_topic AND u.unique_key = v_message.unique_key;
    END IF;
  END IF;
  IF v_is_held THEN
    -- It is put off, the longer the older it is, and counts as not tried.
    begins := false;
    due_in_ms := least(1000, greatest(20, extract(epoch FROM v_now - v_message.enqueued_at) * 250));
    UPDATE hawser_data.queue AS q SET worker = NULL, due_at = v_now + due_in_ms * interval '1 millisecond'
     WHERE q.topic = p_topic AND q.recipient = p_recipient AND q.role = p_role AND q.rank = p_rank AND q.worker = p_worker;
    RETURN;
  END IF;
  DELETE FROM hawser_data.unique_locks AS l WHERE l.id = v_message.id;
END
