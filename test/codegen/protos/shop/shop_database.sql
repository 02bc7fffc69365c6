BEGIN
  name := current_database();
END
