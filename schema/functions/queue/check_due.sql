BEGIN
  -- What waits is compared with other times and subtracted from them, which not every time can be.
  IF p_deliver_at NOT BETWEEN '1970-01-01 00:00:00Z' AND clock_timestamp() + interval '@QueueConstants.max_later_days@ days' THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format(
        '%s: the argument deliver_at is %s, and must be within @QueueConstants.max_later_days@ days, and not before 1970', p_function, p_deliver_at
      ),
      HINT = 'Give such a moment, or none for now. Until a later one, keep the message in a table of yours.';
  END IF;
  valid := true;
END
