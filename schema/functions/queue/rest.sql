BEGIN
  UPDATE hawser_data.workers AS w SET is_idle = true, beat_at = clock_timestamp() WHERE w.id = p_worker AND w.gone_at IS NULL;
  rests := FOUND;
  IF NOT rests THEN
    @raise_lease_lost(p_worker)@;
  END IF;
END
