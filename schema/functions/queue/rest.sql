BEGIN
  UPDATE hawser_data.workers AS w SET is_idle = true, beat_at = clock_timestamp() WHERE w.id = p_worker AND w.gone_at IS NULL;
  rests := FOUND;
  IF NOT rests THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('lease_lost'),
      MESSAGE = format('the worker %s has ended', p_worker),
      HINT = 'Begin a new one with hawser.open_worker, and forget what this one had.';
  END IF;
END
