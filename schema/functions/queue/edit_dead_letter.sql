BEGIN
  RETURN hawser.write_edit(id, @payload@, coalesce(any_format, false));
END
