#variable_conflict use_column
DECLARE
  v_what CONSTANT text := 'peer:' || p_name;
  v_now_ms CONSTANT bigint := floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint;
  v_owner hawser_data.owners;
BEGIN
  IF NOT pg_try_advisory_lock(p_life) THEN
    RAISE EXCEPTION 'the key % of this session is the key of another one', p_life
      USING ERRCODE = 'object_in_use', HINT = 'Draw a key at random for each session.';
  END IF;
  IF NOT EXISTS (SELECT FROM hawser_data.owners AS o WHERE o.what = v_what) THEN
    INSERT INTO hawser_data.owners (what, epoch) VALUES (v_what, 0) ON CONFLICT (what) DO NOTHING;
  END IF;
  -- Not waited for: who has the row locked is about to take the name, or to fence its owner off.
  SELECT o.* INTO v_owner FROM hawser_data.owners AS o WHERE o.what = v_what FOR UPDATE SKIP LOCKED;
  taken := FOUND AND (v_owner.pid IS NULL OR v_owner.pid = pg_backend_pid() OR NOT hawser.is_alive(v_owner.pid, v_owner.life));
  IF NOT taken THEN
    RETURN;
  END IF;

  was_clean := coalesce((SELECT p.clean FROM hawser_peer_data.peers AS p WHERE p.name = p_name), true);
  -- The clock keeps the epoch growing also where a failover or a restore lost the rows' last values.
  INSERT INTO hawser_peer_data.peers AS p (name, epoch, clean, started_at, token)
  VALUES (p_name, greatest(v_owner.epoch + 1, v_now_ms), false, clock_timestamp(), p_token)
  ON CONFLICT (name) DO UPDATE
    SET epoch = greatest(p.epoch + 1, excluded.epoch),
        clean = false,
        started_at = excluded.started_at,
        token = excluded.token,
        -- Of the process before: this one may say nothing of them.
        version = NULL,
        certificate_ends_at = NULL
  RETURNING p.epoch INTO own_name.epoch;
  UPDATE hawser_data.owners AS o SET epoch = own_name.epoch, pid = pg_backend_pid(), life = p_life WHERE o.what = v_what;
END
