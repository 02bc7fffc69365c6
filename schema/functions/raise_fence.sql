#variable_conflict use_column
DECLARE
  v_what CONSTANT text := 'peer:' || p_name;
BEGIN
  -- A snapshot from before the wait would not see who has taken the name meanwhile.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'hawser.raise_fence needs READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'invalid_transaction_state';
  END IF;
  INSERT INTO hawser.fences (what, epoch) VALUES (v_what, 0) ON CONFLICT (what) DO NOTHING;
  -- Waits for the writes under way.
  PERFORM FROM hawser.fences AS f WHERE f.what = v_what FOR UPDATE;
  held := EXISTS (SELECT FROM hawser.owners AS o WHERE o.what = v_what AND o.epoch = p_epoch);
  IF held THEN
    UPDATE hawser.fences AS f SET epoch = p_epoch WHERE f.what = v_what;
    -- With it goes the epoch, which was committed before.
    PERFORM hawser.commit_durably();
  END IF;
END
