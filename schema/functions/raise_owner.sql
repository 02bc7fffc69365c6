#variable_conflict use_column
BEGIN
  INSERT INTO hawser_data.fences (what, epoch) VALUES (p_what, 0) ON CONFLICT (what) DO NOTHING;
  -- Waits for the writes under way.
  PERFORM FROM hawser_data.fences AS f WHERE f.what = p_what FOR UPDATE;
  held := EXISTS (SELECT FROM hawser_data.owners AS o WHERE o.what = p_what AND o.epoch = p_epoch);
  IF held THEN
    UPDATE hawser_data.fences AS f SET epoch = p_epoch WHERE f.what = p_what;
    -- With it goes the epoch, which was committed before.
    PERFORM hawser.commit_durably();
  END IF;
END
