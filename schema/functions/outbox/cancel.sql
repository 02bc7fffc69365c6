#variable_conflict use_column
DECLARE
  v_roles text[];
BEGIN
  IF cancel.id IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = 'hawser.cancel: the argument id is NULL, and needs a value',
      HINT = 'Give the number that the function returned which has enqueued the message.';
  END IF;
  -- As if it were not there, where it is of a role that the caller is not a member of.
  v_roles := hawser.callers_roles();
  DELETE FROM hawser.outbox_later AS l WHERE l.id = cancel.id AND (v_roles IS NULL OR l.role = ANY (v_roles));
  cancelled := FOUND;
END
