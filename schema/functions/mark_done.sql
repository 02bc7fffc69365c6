#variable_conflict use_column
DECLARE
  v_is_one boolean := cardinality(p_epochs) = 1 AND cardinality(p_numbers) = 1;
  v_count integer;
  v_refusal text;
  v_done boolean;
BEGIN
  IF current_setting(@StoreConstants.handling_setting@, true) IS DISTINCT FROM 'on' THEN
    v_refusal := 'ended';
  ELSE
    -- The reads below have to see what was committed while an insert waited.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
      RAISE EXCEPTION 'hawser.mark_done needs READ COMMITTED, not %', current_setting('transaction_isolation')
        USING ERRCODE = 'invalid_transaction_state';
    END IF;
    -- A handler's transaction could take any time until here. From here on others wait for its end who handle the same message.
    v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
    v_done := hawser.commit_durably();

    -- Waits for another transaction that has inserted the same mark, and has not ended.
    -- One, as of most handlers, without the machinery for many.
    IF v_is_one THEN
      INSERT INTO hawser_peer_data.marks (channel_id, epoch, number) VALUES (p_channel_id, p_epochs[1], p_numbers[1])
      ON CONFLICT (channel_id, epoch, number) DO NOTHING;
    ELSE
      INSERT INTO hawser_peer_data.marks (channel_id, epoch, number)
      SELECT p_channel_id, m.epoch, m.number FROM unnest(p_epochs, p_numbers) AS m (epoch, number) ORDER BY m.epoch, m.number
      ON CONFLICT (channel_id, epoch, number) DO NOTHING;
    END IF;
    GET DIAGNOSTICS v_count = ROW_COUNT;

    -- Only now, in a later statement: whoever has removed such a mark has moved the cursor in the same transaction.
    v_refusal := CASE
      WHEN v_count < cardinality(p_epochs) THEN 'duplicate'
      WHEN v_is_one AND NOT EXISTS (
        SELECT FROM hawser_peer_data.cursors AS c
         WHERE c.channel_id = p_channel_id AND (c.epoch, c.number) >= (p_epochs[1], p_numbers[1])
      ) AND EXISTS (
        SELECT FROM hawser_peer_data.peers AS p, hawser_peer_data.channels AS m
         WHERE p.name = p_name AND p.epoch = p_epoch
           AND m.channel_id = p_channel_id AND coalesce(m.owner, m.listener_name) = p_name
      ) THEN NULL
      ELSE hawser.handling_refusal(p_name, p_epoch, p_channel_id, p_epochs, p_numbers, false)
    END;
  END IF;
  marked := v_refusal IS NULL;
  IF NOT marked THEN
    -- An error, so that a COMMIT that is sent along is not carried out.
    RAISE EXCEPTION 'what a handler of "%" did with messages of channel % is not committed', p_name, p_channel_id
      USING ERRCODE = 'integrity_constraint_violation', SCHEMA = 'hawser_peer_data', TABLE = 'marks', CONSTRAINT = v_refusal;
  END IF;
END
