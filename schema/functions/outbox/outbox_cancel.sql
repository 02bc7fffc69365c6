#variable_conflict use_column
BEGIN
  IF outbox_cancel.id IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = 'hawser.outbox_cancel: the argument id is NULL, and needs a value',
      HINT = 'Give the number that the function returned which has enqueued the message.';
  END IF;
  DELETE FROM hawser.outbox_later AS l WHERE l.id = outbox_cancel.id;
  cancelled := FOUND;
END
