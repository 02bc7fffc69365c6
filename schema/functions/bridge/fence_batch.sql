BEGIN
  -- A process that takes over raises the epoch there first, and here when this lock is free: batches that begin in between would
  -- keep it waiting.
  held := EXISTS (SELECT FROM hawser.bridge_lead AS l WHERE l.epoch = p_epoch);
  IF held THEN
    PERFORM FROM hawser.bridge_fence AS f WHERE f.epoch = p_epoch FOR SHARE;
    held := FOUND;
  END IF;
END
