BEGIN
  -- A process that takes over raises the epoch there first, and here when this lock is free: batches that begin in between would
  -- keep it waiting.
  held := EXISTS (SELECT FROM hawser_data.owners AS o WHERE o.what = 'serve' AND o.epoch = p_epoch);
  IF held THEN
    PERFORM FROM hawser_data.fences AS f WHERE f.what = 'serve' AND f.epoch = p_epoch FOR SHARE;
    held := FOUND;
  END IF;
END
