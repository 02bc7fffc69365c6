#variable_conflict use_column
DECLARE
  v_count integer;
  v_refusal text;
  v_done boolean;
BEGIN
  IF current_setting(@StoreConstants.handling_setting@, true) IS DISTINCT FROM 'on' THEN
    v_refusal := 'ended';
  ELSE
    -- The reads below have to see what was committed while a row was waited for.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
      RAISE EXCEPTION 'hawser.finish_parked needs READ COMMITTED, not %', current_setting('transaction_isolation')
        USING ERRCODE = 'invalid_transaction_state';
    END IF;
    -- From here on others wait for the end of this transaction who handle the same message.
    v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
    v_done := hawser.commit_durably();

    -- Waits for another transaction that has deleted the same row, and has not ended. In an order that is the same for all.
    PERFORM FROM hawser_peer_data.parked_messages AS p
      WHERE p.channel_id = p_channel_id
        AND (p.epoch, p.number) IN (SELECT m.epoch, m.number FROM unnest(p_epochs, p_numbers) AS m (epoch, number))
      ORDER BY p.epoch, p.number FOR UPDATE;
    DELETE FROM hawser_peer_data.parked_messages AS p
     USING unnest(p_epochs, p_numbers) AS m (epoch, number)
     WHERE p.channel_id = p_channel_id AND p.epoch = m.epoch AND p.number = m.number;
    GET DIAGNOSTICS v_count = ROW_COUNT;

    -- Only now, in a later statement.
    v_refusal := CASE
      WHEN v_count < cardinality(p_epochs) THEN 'duplicate'
      WHEN NOT EXISTS (SELECT FROM hawser_peer_data.peers AS p WHERE p.name = p_name AND p.epoch = p_epoch) THEN 'fenced'
      WHEN NOT EXISTS (
        SELECT FROM hawser_peer_data.channels AS m
         WHERE m.channel_id = p_channel_id AND coalesce(m.owner, m.listener_name) = p_name
      ) THEN 'not_owned'
    END;
  END IF;
  finished := v_refusal IS NULL;
  IF NOT finished THEN
    -- An error, so that a COMMIT that is sent along is not carried out.
    RAISE EXCEPTION 'what a handler of "%" did with parked messages of channel % is not committed', p_name, p_channel_id
      USING ERRCODE = 'integrity_constraint_violation', SCHEMA = 'hawser_peer_data', TABLE = 'marks', CONSTRAINT = v_refusal;
  END IF;
END
