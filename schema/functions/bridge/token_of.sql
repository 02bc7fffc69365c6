BEGIN
  token := (
    SELECT h.token FROM hawser_bridge_data.nats_handlers AS h
     WHERE h.id = p_handler
       AND sha256(h.token || convert_to(pg_backend_pid() || ':' || extract(epoch FROM now()), 'UTF8')) = p_proof
  );
END
