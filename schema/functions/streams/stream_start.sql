BEGIN
  start := coalesce(p_start, 'all');
  IF octet_length(start) > @stream_start.max_bytes@ THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('%s: start has %s bytes, and may have @stream_start.max_bytes@', p_called, octet_length(start)),
      HINT = 'It is ''new'', ''all'', a sequence number, or a time.';
  END IF;
  IF start = 'new' THEN
    start := to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
  ELSIF start ~ '^[0-9]+$' THEN
    IF start ~ '^0+$' OR start::numeric > 9007199254740991 THEN
      RAISE EXCEPTION USING
        ERRCODE = hawser.error_sqlstate('invalid_argument'),
        MESSAGE = format('%s: start is %s, and a sequence number is between 1 and 9007199254740991', p_called, left(start, 60)),
        HINT = 'The first message of a stream has 1; ''all'' begins with the first that is there.';
    END IF;
    start := start::bigint::text;
  ELSIF start <> 'all' THEN
    BEGIN
      start := to_char(start::timestamptz AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
    EXCEPTION
      WHEN data_exception THEN
        start := NULL;
    END;
    IF start IS NULL OR start !~ '^[12][0-9]{3}-' THEN
      RAISE EXCEPTION USING
        ERRCODE = hawser.error_sqlstate('invalid_argument'),
        MESSAGE = format('%s: start is %L, and must be ''new'', ''all'', a sequence number, or a time', p_called, left(p_start, 60)),
        HINT = 'A time is one as Postgres takes it, such as ''2026-01-31 12:00:00+00''.';
    END IF;
  END IF;
END
