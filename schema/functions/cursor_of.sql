#variable_conflict use_column
BEGIN
  SELECT c.epoch, c.v, c.attempts INTO cursor_of.epoch, cursor_of.v, cursor_of.attempts
    FROM hawser_data.cursors AS c WHERE c.connection_key = p_connection_key
   ORDER BY c.connection_key DESC, c.epoch DESC, c.v DESC LIMIT 1;
END
