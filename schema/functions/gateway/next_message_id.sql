DECLARE
  -- The id of the message, a space, and how many messages have been published for it.
  handled CONSTANT text := current_setting('hawser.message', true);
  nth integer;
BEGIN
  -- Any session can set it; what is no id becomes no header.
  IF handled IS NULL OR handled !~ '^[A-Za-z0-9._-]{1,100}( [0-9]{1,9})?$' THEN
    RETURN NULL;
  END IF;
  nth := coalesce(substring(handled FROM ' ([0-9]{1,9})$')::integer, 0) + 1;
  PERFORM set_config('hawser.message', split_part(handled, ' ', 1) || ' ' || nth, true);
  RETURN split_part(handled, ' ', 1) || '.' || nth;
END
