#variable_conflict use_column
DECLARE
  v_what CONSTANT text := 'peer:' || p_name;
  v_owner hawser_data.owners;
  v_epoch bigint;
BEGIN
  -- Also for a name that was never taken: the lock keeps it from being taken.
  INSERT INTO hawser_data.owners (what, epoch) VALUES (v_what, 0) ON CONFLICT (what) DO NOTHING;
  SELECT o.* INTO v_owner FROM hawser_data.owners AS o WHERE o.what = v_what FOR UPDATE;
  ended := p_force OR v_owner.pid IS NULL OR NOT hawser.is_alive(v_owner.pid, v_owner.life);
  IF NOT ended THEN
    RETURN;
  END IF;
  PERFORM hawser.commit_durably();
  -- The token goes, so that a process that was taking the name does not believe that this epoch is its own.
  UPDATE hawser_peer_data.peers AS p
     SET epoch = greatest(p.epoch + 1, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint),
         token = NULL
   WHERE p.name = p_name
  RETURNING p.epoch INTO v_epoch;
  UPDATE hawser_data.owners AS o SET epoch = coalesce(v_epoch, o.epoch), pid = NULL, life = NULL WHERE o.what = v_what;
END
