BEGIN
  DELETE FROM hawser.nats_handlers AS h
  WHERE NOT EXISTS (SELECT FROM pg_proc AS w WHERE w.pronamespace = to_regnamespace('hawser_run') AND w.proname = h.wrapper);
  GET DIAGNOSTICS pruned = ROW_COUNT;
END
