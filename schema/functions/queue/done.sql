#variable_conflict use_column
DECLARE
  v_is_one boolean := cardinality(p_ids) = 1;
  v_count integer;
  v_done boolean;
BEGIN
  IF p_handling AND current_setting(@StoreConstants.handling_setting@, true) IS DISTINCT FROM 'on' THEN
    RAISE EXCEPTION 'what a handler did with messages of the queue is not committed: it has ended its transaction'
      USING ERRCODE = 'integrity_constraint_violation', SCHEMA = 'hawser_data', TABLE = 'queue', CONSTRAINT = 'ended';
  END IF;
  -- From here on others wait for the end of this transaction who end the same message.
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  -- As commit_durably, whose call takes as long as the rest.
  IF current_setting('synchronous_commit') IN ('off', 'local') THEN
    v_done := set_config('synchronous_commit', 'on', true) IS NULL;
  END IF;
  -- One, as of most handlers, without the machinery for many.
  IF v_is_one THEN
    DELETE FROM hawser_data.queue AS q
     WHERE q.topic = p_topics[1] AND q.recipient = p_recipients[1] AND q.role = p_roles[1] AND q.id = p_ids[1];
    GET DIAGNOSTICS v_count = ROW_COUNT;
  ELSE
    -- In one order, so that no two wait for each other.
    PERFORM FROM unnest(p_topics, p_recipients, p_roles, p_ids) AS m (topic, recipient, role, id)
       JOIN hawser_data.queue AS q USING (topic, recipient, role, id)
      ORDER BY id FOR UPDATE OF q;
    DELETE FROM hawser_data.queue AS q
     USING unnest(p_topics, p_recipients, p_roles, p_ids) AS m (topic, recipient, role, id)
     WHERE q.topic = m.topic AND q.recipient = m.recipient AND q.role = m.role AND q.id = m.id;
    GET DIAGNOSTICS v_count = ROW_COUNT;
  END IF;
  ended := v_count = cardinality(p_ids);
  IF NOT ended THEN
    -- An error, so that a COMMIT that is sent along is not carried out.
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('message_gone'),
      MESSAGE = CASE WHEN v_is_one THEN format('the message %s of topic %s is not in the queue any more', p_ids[1], to_json(left(p_topics[1], 60)))
        ELSE format('%s of %s messages are not in the queue any more', cardinality(p_ids) - v_count, cardinality(p_ids)) END,
      HINT = 'Roll back: another worker has handled it, or it was given up.';
  END IF;
END
