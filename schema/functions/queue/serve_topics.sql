BEGIN
  UPDATE hawser_data.workers AS w SET topics = p_topics, stands_in_for = p_stands_in_for WHERE w.id = p_worker AND w.gone_at IS NULL;
  served := FOUND;
  IF NOT served THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('lease_lost'),
      MESSAGE = format('the worker %s has ended', p_worker),
      HINT = 'Begin a new one with hawser.open_worker, and forget what this one had.';
  END IF;
END
