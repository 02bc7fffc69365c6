BEGIN
  noted := false;
  -- Where nobody asks for samples, nothing is written for them.
  IF p_running -> 'totals' IS NULL OR NOT EXISTS (
    SELECT FROM hawser_data.sampling AS s WHERE s.sampled_at > clock_timestamp() - make_interval(secs => @SampleConstants.longest_gap_ms@ / 1000.0)
  ) THEN
    RETURN;
  END IF;
  INSERT INTO hawser_data.ended_workers (role, opened_at, running)
  SELECT p_role, p_opened_at, p_running
   WHERE (SELECT count(*) FROM hawser_data.ended_workers AS e WHERE e.role = p_role) < @SampleConstants.ended_workers@
  ON CONFLICT (role, opened_at) DO NOTHING;
  noted := FOUND;
END
