#variable_conflict use_column
DECLARE
  v_roles text[];
BEGIN
  -- As if it were not there, where it is of a role that the caller is not a member of.
  v_roles := hawser.callers_roles();
  DELETE FROM hawser_data.outbox_later AS l WHERE l.id = cancel.id AND (v_roles IS NULL OR l.role = ANY (v_roles));
  cancelled := FOUND;
END
