#variable_conflict use_column
BEGIN
  UPDATE hawser_data.owners AS o SET pid = NULL, life = NULL WHERE o.what = 'peer:' || p_name AND o.pid = pg_backend_pid();
  released := FOUND;
  IF released AND p_clean THEN
    UPDATE hawser_peer_data.peers AS p SET clean = true WHERE p.name = p_name;
  END IF;
END
