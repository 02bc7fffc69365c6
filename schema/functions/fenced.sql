#variable_conflict use_column
DECLARE
  v_done boolean;
BEGIN
  -- The next owner raises the epoch here first, and at the fence when it can lock that: writes that begin in between would keep
  -- it waiting.
  held := EXISTS (SELECT FROM hawser_data.owners AS o WHERE o.what = 'peer:' || p_name AND o.epoch = p_epoch AND p_epoch > 0);
  IF held THEN
    PERFORM FROM hawser_data.fences AS f WHERE f.what = 'peer:' || p_name AND f.epoch = p_epoch FOR SHARE;
    held := FOUND;
  END IF;
  -- What is written in a name is confirmed to others. An assignment takes a fraction of a PERFORM.
  v_done := hawser.commit_durably();
END
