#variable_conflict use_column
DECLARE
  v_now_ms bigint := floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint;
  v_was_clean boolean;
BEGIN
  -- Exclusive: waits for the writes under way in this name and keeps out all later ones until the new epoch is there.
  PERFORM pg_advisory_xact_lock(hashtextextended('hawser:fence:' || p_name, 0));

  SELECT p.clean INTO v_was_clean FROM hawser.peers AS p WHERE p.name = p_name FOR UPDATE;

  -- The clock keeps the epoch growing also where a failover or a restore lost the row's last values.
  INSERT INTO hawser.peers AS p (name, epoch, clean, started_at, token)
  VALUES (p_name, v_now_ms, false, clock_timestamp(), p_token)
  ON CONFLICT (name) DO UPDATE
    SET epoch = greatest(p.epoch + 1, excluded.epoch),
        clean = false,
        started_at = excluded.started_at,
        token = excluded.token
  RETURNING p.epoch INTO take_name.epoch;

  was_clean := coalesce(v_was_clean, true);
END
