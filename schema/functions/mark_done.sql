#variable_conflict use_column
DECLARE
  v_count integer;
  v_refusal text;
  v_done boolean;
BEGIN
  IF pg_current_xact_id_if_assigned()::text IS DISTINCT FROM p_transaction THEN
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
    INSERT INTO hawser.done_messages (connection_key, epoch, number)
    SELECT p_connection_key, m.epoch, m.number FROM unnest(p_epochs, p_numbers) AS m (epoch, number) ORDER BY m.epoch, m.number
    ON CONFLICT (connection_key, epoch, number) DO NOTHING;
    GET DIAGNOSTICS v_count = ROW_COUNT;

    -- Only now, in a later statement: whoever has removed such a mark has moved the cursor in the same transaction.
    v_refusal := CASE
      WHEN v_count < cardinality(p_epochs) THEN 'duplicate'
      ELSE hawser.handling_refusal(p_name, p_epoch, p_connection_key, p_epochs, p_numbers, false)
    END;
  END IF;
  marked := v_refusal IS NULL;
  IF NOT marked THEN
    -- An error, so that a COMMIT that is sent along is not carried out.
    RAISE EXCEPTION 'what a handler of "%" did with messages of channel % is not committed', p_name, p_connection_key
      USING ERRCODE = 'integrity_constraint_violation', SCHEMA = 'hawser', TABLE = 'done_messages', CONSTRAINT = v_refusal;
  END IF;
END
