#variable_conflict use_column
BEGIN
  -- One at a time with all who retry, discard or expire: none finds half of what another takes.
  PERFORM hawser.lock_dead_letters(true);
  RETURN QUERY
  DELETE FROM hawser.dead_letters AS d WHERE d.id = ANY (p_ids) RETURNING d.id;
END
