#variable_conflict use_column
DECLARE
  v_role CONSTANT text := coalesce(nullif(current_setting('role'), 'none'), session_user);
  v_timezone CONSTANT text := coalesce(p_timezone, 'UTC');
  v_missed CONSTANT text := coalesce(p_missed, 'one');
  v_to_all CONSTANT boolean := coalesce(p_to_all, false);
  v_mark CONSTANT text := hawser.role_mark(v_role, p_kind);
  v_headers jsonb := nullif(p_headers, '{}');
  v_own text;
  v_fault text;
BEGIN
  IF p_kind = 'peer' THEN
    v_headers := hawser.peer_headers(v_headers, NULL);
    v_own := (SELECT h ->> 0 FROM jsonb_array_elements(v_headers) AS h
               WHERE lower((h ->> 0) COLLATE "C") IN (@ScheduleConstants.name_header@, @ScheduleConstants.time_header@) LIMIT 1);
  ELSIF v_headers IS NOT NULL THEN
    PERFORM hawser.check_headers(v_headers);
    v_own := (SELECT h.key FROM jsonb_each(v_headers) AS h
               WHERE lower(h.key COLLATE "C") IN (@ScheduleConstants.name_header@, @ScheduleConstants.time_header@) LIMIT 1);
  END IF;
  v_fault := CASE
    WHEN v_missed NOT IN ('one', 'all', 'none') THEN
      format('the argument missed is %s, and must be "one", "all" or "none". Give one of these', to_json(left(v_missed, 60)))
    WHEN v_own IS NOT NULL THEN format('headers: %s is set by Hawser. Leave it out', to_json(v_own))
    WHEN p_kind = 'peer' AND octet_length(p_payload) = 0 THEN
      'the payload has 0 bytes, and a message for a peer has 1 at least. Give a payload'
    WHEN p_priority <> 0 AND p_key IS NOT NULL THEN
      format('the argument priority is %s, and messages with a key have none. Leave out the priority, or the key', p_priority)
    WHEN p_domain IS NOT NULL AND NOT p_to_stream THEN
      format('the argument domain is %s, and only a message for a stream has one. Leave it out, or give stream => true', to_json(p_domain))
  END;
  IF v_fault IS NULL THEN
    BEGIN
      PERFORM clock_timestamp() AT TIME ZONE v_timezone;
    EXCEPTION WHEN invalid_parameter_value THEN
      v_fault := format('the argument timezone is %s, and must be one of those in pg_timezone_names. Give a name such as Europe/Berlin', to_json(v_timezone));
    END;
  END IF;
  IF v_fault IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = 'hawser.schedule: ' || split_part(v_fault, '. ', 1),
      HINT = split_part(v_fault, '. ', 2) || '.';
  END IF;
  IF starts_with(p_destination, @QueueConstants.reserved_prefix@) AND p_kind = 'peer' THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('internal_topic'),
      MESSAGE = format('the topic %s begins with %s, which is reserved', to_json(p_destination), @QueueConstants.reserved_prefix@),
      HINT = 'Choose another topic.';
  END IF;

  -- Programs say it each time they start. What is the same is not locked: the schedule would wait for their transaction.
  -- With a problem it is tried again.
  PERFORM FROM hawser_data.schedules AS s
    WHERE s.role = v_role AND s.name = p_name AND s.problem IS NULL
      AND (s.cron, s.timezone, s.missed, s.kind, s.destination, s.payload, s.headers, s.key, s.to_stream, s.domain, s.to_all, s.role_mark, s.priority)
          IS NOT DISTINCT FROM
          (p_cron, v_timezone, v_missed, p_kind, p_destination, p_payload, v_headers, p_key, p_to_stream, p_domain, v_to_all, v_mark, p_priority);
  changed := NOT FOUND;
  IF NOT changed THEN
    RETURN;
  END IF;
  IF p_key IS NOT NULL AND p_kind <> 'nats' THEN
    -- What enqueues the occurrences needs the row of their key.
    PERFORM hawser.lock_key(p_destination, p_key);
  END IF;
  INSERT INTO hawser_data.schedules AS s
    (role, name, cron, timezone, missed, kind, destination, payload, headers, key, to_stream, domain, to_all, role_mark, priority, since,
     next_at)
  VALUES (
    v_role, p_name, p_cron, v_timezone, v_missed, p_kind, p_destination, p_payload, v_headers, p_key, p_to_stream, p_domain, v_to_all, v_mark,
    p_priority, date_trunc('second', clock_timestamp()), '-infinity'
  )
  ON CONFLICT (role, name) DO UPDATE SET
    cron = excluded.cron,
    timezone = excluded.timezone,
    missed = excluded.missed,
    kind = excluded.kind,
    destination = excluded.destination,
    payload = excluded.payload,
    headers = excluded.headers,
    key = excluded.key,
    to_stream = excluded.to_stream,
    domain = excluded.domain,
    to_all = excluded.to_all,
    role_mark = excluded.role_mark,
    priority = excluded.priority,
    since = CASE WHEN (s.cron, s.timezone) = (excluded.cron, excluded.timezone) THEN s.since ELSE excluded.since END,
    next_at = CASE WHEN (s.cron, s.timezone) = (excluded.cron, excluded.timezone) AND s.problem IS NULL THEN s.next_at ELSE excluded.next_at END,
    problem = NULL,
    revision = excluded.revision;
  IF (SELECT count(*) FROM hawser_data.schedules AS s WHERE s.role = v_role) > @ScheduleConstants.max_schedules@ THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('hawser.schedule: the role %s has @ScheduleConstants.max_schedules@ schedules already, and may not have more', to_json(v_role)),
      HINT = 'End some with hawser.unschedule.';
  END IF;
  PERFORM hawser.record_act('schedule', p_name, NULL, jsonb_build_object('destination', left(p_destination, 255), 'cron', p_cron, 'timezone', v_timezone));
  -- On a server with prepared transactions a transaction that notifies could not be prepared; there it is found by a poll.
  IF current_setting('max_prepared_transactions') = '0' THEN
    PERFORM pg_notify(@ScheduleConstants.channel@, '') WHERE pg_notification_queue_usage() < 0.9;
  END IF;
END
