#variable_conflict use_column
DECLARE
  v_role CONSTANT text := CASE current_setting('role') WHEN 'none' THEN session_user::text ELSE current_setting('role') END;
  -- The cursors before, in the order of channels.
  v_keys integer[];
  v_epochs bigint[];
  v_numbers bigint[];
  v_topics text[];
  v_fault text;
  v_done boolean;
BEGIN
  IF octet_length(p_left_payloads) IS DISTINCT FROM (
    SELECT CASE WHEN min(j.payload_bytes) >= 0 THEN sum(j.payload_bytes) END FROM jsonb_to_recordset(p_left) AS j (payload_bytes integer)
  ) THEN
    v_fault := format('the lengths of the payloads do not add up to the %s bytes given', octet_length(p_left_payloads));
  ELSIF EXISTS (
    SELECT FROM jsonb_to_recordset(p_left) AS j (failures jsonb, headers jsonb)
     WHERE octet_length(j.failures::text) > @dead_letter_failures.max_bytes@ OR octet_length(j.headers::text) > @dead_letter_headers.max_bytes@
  ) THEN
    v_fault := 'its failed attempts or its headers are too large';
  ELSE
    SELECT hawser.dead_letter_fault('queue', '', coalesce(t.topic, 'topic id ' || j.topic_id), nullif(j.headers, 'null'::jsonb), NULL) INTO v_fault
      FROM jsonb_to_recordset(p_left) AS j (topic_id integer, headers jsonb)
      LEFT JOIN hawser_peer_data.topics AS t ON t.id = j.topic_id
     ORDER BY 1 NULLS LAST LIMIT 1;
  END IF;
  IF v_fault IS NOT NULL THEN
    RAISE EXCEPTION 'a message that leaves its channel to "%" is refused: %', p_name, v_fault
      USING ERRCODE = 'invalid_parameter_value', HINT = 'Give the message as it was received.';
  END IF;

  SELECT array_agg(l.channel_id), array_agg(l.epoch), array_agg(l.number)
    INTO v_keys, v_epochs, v_numbers
    FROM hawser.lock_cursors(ARRAY(
      SELECT m.channel_id FROM hawser_peer_data.channels AS m
       WHERE m.listener_name = p_name AND m.channel_id IN (SELECT j.channel_id FROM jsonb_to_recordset(p_left) AS j (channel_id integer))
    )) AS l;

  WITH given AS MATERIALIZED (
    SELECT j.*, sum(j.payload_bytes) OVER (ORDER BY j.nth) AS past
      FROM ROWS FROM (jsonb_to_recordset(p_left) AS (
        channel_id integer, epoch bigint, number bigint, topic_id integer, listener text, lane text, message_id text, headers jsonb, attempts integer,
        delay_ms bigint, is_suspect boolean, worker bigint, failures jsonb, payload_bytes integer, error_code text, error_message text, stack text
      )) WITH ORDINALITY AS j (
        channel_id, epoch, number, topic_id, listener, lane, message_id, headers, attempts, delay_ms, is_suspect, worker, failures, payload_bytes,
        error_code, error_message, stack, nth
      )
  ), waiting AS MATERIALIZED (
    -- What waits of the lanes and topics, the newest of each, so that no walk goes through what was taken before.
    SELECT a.channel_id, a.lane, a.topic_id, n.recipient, n.role, n.role_id
      FROM (SELECT DISTINCT g.channel_id, g.lane, g.topic_id FROM given AS g) AS a
      JOIN (SELECT k.key FROM unnest(v_keys) AS k (key) CROSS JOIN LATERAL hawser.cursor_of(k.key) AS o WHERE o.has_rows) AS c ON c.key = a.channel_id
      JOIN hawser_peer_data.topics AS t ON t.id = a.topic_id
     CROSS JOIN LATERAL (
       SELECT q.recipient, q.role, q.role_id FROM hawser_data.queue AS q
        WHERE q.channel_id = a.channel_id AND q.key = a.channel_id || ':' || a.lane AND q.topic = t.topic
        ORDER BY q.channel_id DESC, q.key DESC, q.topic DESC, q.rank DESC LIMIT 1
     ) AS n
  ), placed AS MATERIALIZED (
    SELECT g.*, coalesce(t.topic, 'topic id ' || g.topic_id) AS topic, coalesce(l.recipient, '@' || g.listener, '') AS recipient, l.role, l.role_id, g.channel_id || ':' || g.lane AS key,
           m.sender_name || ':' || m.source_topic AS origin, (g.epoch, g.number) > (o.epoch, o.number) AS is_new
      FROM given AS g
      JOIN unnest(v_keys, v_epochs, v_numbers) AS o (key, epoch, number) ON o.key = g.channel_id
      JOIN hawser_peer_data.channels AS m ON m.channel_id = g.channel_id AND m.listener_name = p_name
      -- A role that may give an id to any topic reaches no subscribed function by it.
      LEFT JOIN hawser_peer_data.topics AS t ON t.id = g.topic_id AND NOT starts_with(t.topic, @QueueConstants.function_prefix@)
      -- Behind what waits of its lane and topic, so that the order holds: for the same listener, and of the same role.
      LEFT JOIN waiting AS l ON l.channel_id = g.channel_id AND l.lane = g.lane AND l.topic_id = g.topic_id
  ), numbered AS MATERIALIZED (
    -- The order of ids is that of the messages.
    SELECT p.*, nextval('hawser_data.outbox_id_seq') AS id FROM (SELECT p.* FROM placed AS p WHERE p.is_new ORDER BY p.nth) AS p
  ), written AS (
    INSERT INTO hawser_data.queue
      (topic, recipient, role, role_id, rank, id, worker, begun_by, attempts, due_at, key, origin, payload, headers, failures, is_suspect, message_id, channel_id)
    SELECT n.topic, n.recipient, coalesce(n.role, v_role), coalesce(n.role_id, to_regrole(quote_ident(v_role))::oid::bigint), n.id, n.id, w.id, w.id, least(n.attempts, 32767),
           CASE WHEN n.delay_ms > 0 THEN clock_timestamp() + make_interval(secs => n.delay_ms / 1000.0) END, n.key, n.origin,
           substring(p_left_payloads FROM (n.past - n.payload_bytes + 1)::integer FOR n.payload_bytes),
           nullif(n.headers, 'null'::jsonb), nullif(n.failures, 'null'::jsonb), coalesce(n.is_suspect, false), n.message_id, n.channel_id
      FROM numbered AS n
      LEFT JOIN hawser_data.workers AS w ON w.id = n.worker AND w.name = p_name AND w.role = v_role AND w.gone_at IS NULL
     WHERE n.error_code IS NULL
     ORDER BY n.nth
  ), given_up AS (
    INSERT INTO hawser_data.dead_letters
      (origin, source, topic, payload, headers, error_code, error_message, attempts, message_id, stack, failures, role, job_id, rank, enqueued_at, channel_id, worker)
    SELECT 'queue', n.recipient, n.topic, substring(p_left_payloads FROM (n.past - n.payload_bytes + 1)::integer FOR n.payload_bytes),
           jsonb_build_array(jsonb_build_array(@ProtocolConstants.message_origin_header@, n.origin || ':')) || coalesce(nullif(n.headers, 'null'::jsonb), '[]'),
           left(n.error_code, @dead_letter_error_code.max_bytes@), n.error_message, n.attempts, n.message_id, n.stack, nullif(n.failures, 'null'::jsonb),
           v_role, n.id, n.id, clock_timestamp(), n.channel_id, p_name
      FROM numbered AS n WHERE n.error_code IS NOT NULL
  ), found AS (
    -- Of a call that is repeated.
    SELECT p.nth, coalesce(n.id, (
             SELECT q.rank FROM hawser_data.queue AS q
              WHERE q.channel_id = p.channel_id AND q.key = p.key AND q.message_id = p.message_id LIMIT 1
           ), 0) AS rank
      FROM placed AS p LEFT JOIN numbered AS n ON n.nth = p.nth
     WHERE p.worker IS NOT NULL
  )
  SELECT coalesce((SELECT array_agg(DISTINCT n.channel_id) FROM numbered AS n WHERE n.error_code IS NULL), '{}'),
         (SELECT array_agg(DISTINCT n.topic) FROM numbered AS n WHERE n.error_code IS NULL AND n.worker IS NULL AND coalesce(n.delay_ms, 0) <= 0),
         (SELECT string_agg(coalesce(f.rank, 0)::text, ',' ORDER BY g.nth) FROM given AS g LEFT JOIN found AS f USING (nth) HAVING count(g.worker) > 0)
    INTO channel_ids, v_topics, ranks;
  role := v_role;
  IF v_topics IS NOT NULL THEN
    v_done := hawser.wake_topics(v_topics);
  END IF;
END
