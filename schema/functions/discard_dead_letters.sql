#variable_conflict use_column
BEGIN
  -- One at a time with all who retry, discard or expire: none finds half of what another takes.
  PERFORM pg_advisory_xact_lock(hashtextextended('hawser:dead_letters', 0));
  RETURN QUERY
  DELETE FROM hawser.dead_letters AS d WHERE d.id = ANY (p_ids) RETURNING d.id;
END
