#variable_conflict use_column
DECLARE
  v_what CONSTANT text := 'peer:' || p_name;
  v_owner hawser_data.owners;
BEGIN
  IF NOT pg_try_advisory_lock(p_life) THEN
    RAISE EXCEPTION 'the key % of this session is the key of another one', p_life
      USING ERRCODE = 'object_in_use', HINT = 'Draw a key at random for each session.';
  END IF;
  owned := false;
  in_use := false;
  SELECT o.* INTO v_owner FROM hawser_data.owners AS o WHERE o.what = v_what FOR UPDATE;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  epoch := v_owner.epoch;
  owned := epoch = p_epoch OR coalesce((SELECT p.token = p_token FROM hawser_peer_data.peers AS p WHERE p.name = p_name), false);
  IF NOT owned THEN
    RETURN;
  END IF;
  -- The last session of this peer may have a call under way. After its end either what the call does is there, or never will be.
  in_use := v_owner.pid IS NOT NULL AND v_owner.pid <> pg_backend_pid() AND hawser.is_alive(v_owner.pid, v_owner.life);
  IF NOT in_use THEN
    UPDATE hawser_data.owners AS o SET pid = pg_backend_pid(), life = p_life WHERE o.what = v_what;
  END IF;
END
