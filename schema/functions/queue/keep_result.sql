#variable_conflict use_column
DECLARE
  v_roles CONSTANT text[] := hawser.callers_roles();
  v_xid CONSTANT xid8 := pg_current_xact_id_if_assigned();
  v_message record;
  v_to_all boolean;
BEGIN
  UPDATE hawser_data.queue AS q SET keep_ms = keep_result.keep_ms
   WHERE q.id = keep_result.id AND @is_later_job(q)@ AND @is_own(q)@
  RETURNING q.to_all INTO v_to_all;
  kept := FOUND;
  IF NOT kept THEN
    SELECT q.topic, q.recipient, q.role, q.rank, q.keep_ms, q.to_all,
           -- One that is there though its transaction runs is of this one, or of a part of it behind a savepoint.
           CASE WHEN age(q.xmin) <= 0 THEN coalesce(pg_xact_status((v_xid::text::bigint - age(q.xmin))::text::xid8) = 'in progress', false) ELSE false END AS is_own
      INTO v_message
      FROM hawser_data.queue AS q
     WHERE q.id = keep_result.id AND q.later IS NULL AND @is_own(q)@
     LIMIT 1;
    kept := FOUND AND (v_message.is_own OR v_message.keep_ms IS NOT NULL);
    -- Another one's row may be a worker's, which would wait for the end of this transaction.
    IF kept AND v_message.is_own THEN
      UPDATE hawser_data.queue AS q SET keep_ms = keep_result.keep_ms
       WHERE q.topic = v_message.topic AND q.recipient = v_message.recipient AND q.role = v_message.role AND q.rank = v_message.rank;
      v_to_all := v_message.to_all;
    END IF;
  END IF;
  IF v_to_all THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('the message %s is for all listeners of its topic, and has a result of each', keep_result.id),
      HINT = 'Enqueue it without to_all, or keep no result.';
  END IF;
END
