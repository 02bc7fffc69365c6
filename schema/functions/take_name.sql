BEGIN
  RAISE EXCEPTION 'the schema hawser is newer than the program that takes the name "%"', p_name
    USING ERRCODE = hawser.error_sqlstate('schema_too_new'), HINT = 'Upgrade the program.';
END
