BEGIN
  PERFORM hawser.check_places(p_topics);
  UPDATE hawser_data.workers AS w SET topics = p_topics, stands_in_for = p_stands_in_for WHERE w.id = p_worker AND w.gone_at IS NULL;
  served := FOUND;
  IF NOT served THEN
    @raise_lease_lost(p_worker)@;
  END IF;
END
