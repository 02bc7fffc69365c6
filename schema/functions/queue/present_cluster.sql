BEGIN
  -- Some services keep it to themselves.
  IF has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE') THEN
    SELECT c.system_identifier INTO cluster FROM pg_control_system() AS c;
  END IF;
END
