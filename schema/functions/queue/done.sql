DECLARE
  v_marked jsonb;
  v_done boolean;
BEGIN
  IF p_handling AND current_setting(@StoreConstants.handling_setting@, true) IS DISTINCT FROM 'on' THEN
    RAISE EXCEPTION 'what a handler did with a message of the queue is not committed: it has ended its transaction'
      USING ERRCODE = 'integrity_constraint_violation', SCHEMA = 'hawser_data', TABLE = 'queue', CONSTRAINT = 'ended';
  END IF;
  -- From here on others wait for the end of this transaction who end the same message.
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  -- As commit_durably does it, whose call would take as long as all of this.
  IF current_setting('synchronous_commit') IN ('off', 'local') THEN
    v_done := set_config('synchronous_commit', 'on', true) IS NULL;
  END IF;
  DELETE FROM hawser_data.queue AS q WHERE q.topic = p_topic AND q.recipient = p_recipient AND q.role = p_role AND q.rank = p_rank
  RETURNING CASE WHEN @is_marked(q)@ THEN jsonb_build_array(@marks_of(q)@) END INTO v_marked;
  ended := FOUND;
  IF v_marked IS NOT NULL THEN
    v_done := hawser.end_marked(v_marked, true);
  ELSIF NOT ended THEN
    -- An error, so that a COMMIT that is sent along is not carried out.
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('message_gone'),
      MESSAGE = format('the message of rank %s of topic %s is not in the queue any more', p_rank, to_json(left(p_topic, 60))),
      HINT = 'Roll back: another worker has handled it, or it was given up.';
  END IF;
END
