BEGIN
  -- A process that takes over raises the epoch there first, and here when this lock is free: batches that begin in between would
  -- keep it waiting.
  held := EXISTS (SELECT FROM hawser_data.owners AS o WHERE o.what = 'serve' AND o.epoch = p_epoch);
  IF held THEN
    PERFORM FROM hawser_data.fences AS f WHERE f.what = 'serve' AND f.epoch = p_epoch FOR SHARE;
    held := FOUND;
  ELSIF EXISTS (SELECT FROM hawser_data.owners AS o WHERE o.what = 'serve' AND o.epoch = 0) THEN
    -- A leader of an older schema: an error makes its messages wait until it steps down, and it saves them at its end. By false it
    -- would drop what it receives until then.
    RAISE EXCEPTION 'no hawser serve of this schema has led yet'
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Stop the hawser serve of the older version, and start one of this version.';
  END IF;
END
