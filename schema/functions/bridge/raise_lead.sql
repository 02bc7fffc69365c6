#variable_conflict use_column
BEGIN
  PERFORM set_config('lock_timeout', '@BridgeConstants.fence_wait_ms@', true);
  BEGIN
    PERFORM hawser.raise_owner('serve', p_epoch);
    raised := true;
  EXCEPTION WHEN lock_not_available THEN
    raised := false;
  END;
  -- The others see that it lives. What they know of the progress stays that of the leader before.
  UPDATE hawser_data.owners AS o SET beat = o.beat - 1 WHERE o.what = 'serve' AND o.epoch = p_epoch AND o.owner = p_owner;
  held := FOUND;
END
