#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT m.id, m.name, m.checksum, m.oldest_program, m.functions FROM hawser_data.migrations AS m ORDER BY m.id;
END
