#variable_conflict use_column
DECLARE
  v_roles CONSTANT text[] := hawser.callers_roles();
  d hawser_data.dead_letters;
  v_problem text[];
BEGIN
  PERFORM hawser.commit_durably();
  -- Locks this letter alone: a retry or discard of it waits for the end of this transaction, and the expiry passes over it.
  SELECT l.* INTO d FROM hawser_data.dead_letters AS l WHERE l.id = p_id AND @is_own(l)@ FOR UPDATE;
  IF NOT FOUND THEN
    SELECT l.* INTO d FROM hawser_data.dead_letters AS l WHERE l.id = p_id;
  END IF;
  v_problem := CASE
    WHEN d.id IS NULL THEN ARRAY[
      'invalid_argument', format('there is no dead letter %s (any more)', p_id),
      'It was retried or discarded, or has expired. If it has failed again, it has another id: hawser dead list shows it.'
    ]
    WHEN @is_own(d)@ IS NOT TRUE THEN ARRAY[
      'not_permitted', format('the dead letter %s belongs to the role %s, of which you are no member', p_id, to_json(d.role)),
      format('Have a member of it do it, or: GRANT %I TO %I.', d.role, session_user)
    ]
    WHEN d.origin NOT IN ('queue', 'subscription') THEN ARRAY[
      'invalid_argument', format('the dead letter %s is of the origin %s, and only those of the queue and of subscriptions can be edited', p_id, d.origin),
      'Send or enqueue another message with the right payload, and discard this one.'
    ]
    WHEN d.origin = 'queue' AND octet_length(p_payload) = 0 THEN ARRAY[
      'invalid_argument', 'the payload has 0 bytes, and a message for a topic has 1 at least', 'Give a payload.'
    ]
    WHEN NOT p_any_format AND NOT hawser.is_json(p_payload) AND (
      EXISTS (
        SELECT FROM jsonb_array_elements(CASE jsonb_typeof(d.headers) WHEN 'array' THEN d.headers END) AS h (pair)
         WHERE lower((h.pair ->> 0) COLLATE "C") = 'content-type' AND (h.pair ->> 1) ~* '[/+]json\M'
      )
      -- Any word or number would be JSON, too.
      OR substr(d.payload, 1, 1) IN ('\x5b', '\x7b') AND hawser.is_json(d.payload)
    ) THEN ARRAY[
      'invalid_argument', format('the dead letter %s is JSON, and the new payload is not', p_id),
      'Mend the payload, or allow another format: any_format => true in SQL, --any-format of hawser dead edit.'
    ]
  END;
  IF v_problem IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate(v_problem[1]), MESSAGE = 'hawser.edit_dead_letter: ' || v_problem[2], HINT = v_problem[3];
  END IF;
  edited := p_payload IS DISTINCT FROM d.payload;
  IF NOT edited THEN
    RETURN;
  END IF;
  -- The first one stays.
  INSERT INTO hawser_data.original_payloads AS o (origin, id, payload)
  VALUES (d.origin, CASE d.origin WHEN 'queue' THEN d.job_id ELSE d.id END, d.payload)
  ON CONFLICT (origin, id) DO UPDATE SET edited_at = excluded.edited_at, edited_by = excluded.edited_by, edits = o.edits + 1;
  UPDATE hawser_data.dead_letters AS l SET payload = p_payload WHERE l.id = p_id;
  PERFORM hawser.record_act(
    'edit', d.topic, 1, jsonb_build_object('ids', jsonb_build_array(p_id), 'job', d.job_id, 'bytes', octet_length(p_payload))
  );
END
