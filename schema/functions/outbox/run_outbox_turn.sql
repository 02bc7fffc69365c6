#variable_conflict use_column
DECLARE
  v_latest record;
  v_xmax CONSTANT xid8 := pg_snapshot_xmax(p_read_from);
  v_xip CONSTANT xid8[] := ARRAY(SELECT pg_snapshot_xip(p_read_from));
  v_to pg_snapshot := p_read_to;
  v_messages refcursor;
  v_message record;
  v_count integer := 0;
  v_bytes bigint := 0;
  v_has_more boolean := false;
  -- How many messages are new, counted up to sorted_messages. NULL: a page of a set that was begun.
  v_new bigint;
  v_saves boolean := p_must_save OR p_due_from IS NOT NULL;
  v_due record;
  v_found timestamptz;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'hawser.run_outbox_turn needs READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'invalid_transaction_state';
  END IF;
  SELECT t.turn, t.owner, t.cluster INTO STRICT v_latest FROM hawser.outbox_turns AS t ORDER BY t.turn DESC LIMIT 1;
  IF v_latest.owner <> p_owner OR v_latest.turn NOT IN (p_turn, p_turn - 1) THEN
    state := 'lost';
    RETURN NEXT;
    RETURN;
  END IF;
  IF v_latest.turn = p_turn THEN
    state := 'repeated';
    RETURN NEXT;
    RETURN;
  END IF;

  IF v_saves THEN
    -- Fails if another relay has had this turn meanwhile. First, so that it also fences what is brought in.
    INSERT INTO hawser.outbox_turns (turn, owner, done_from, done_to, done_after, skipped, cluster)
    VALUES (p_turn, p_owner, p_done_from, p_done_to, p_done_after, p_skipped, v_latest.cluster);
  END IF;
  SELECT b.brought, b.due_from, b.due_in_ms INTO v_due FROM hawser.bring_due('nats', p_due_from) AS b
   WHERE p_due_from IS NOT NULL;
  IF p_asleep IS NOT NULL THEN
    PERFORM setval('hawser.outbox_state_asleep_seq', CASE WHEN p_asleep THEN 2 ELSE 1 END);
  END IF;
  IF p_read_from IS NOT NULL THEN
    IF p_read_to IS NULL THEN
      -- A statement of its own, behind the setval: of those who have not seen that, it sees or lists all.
      SELECT pg_current_snapshot() INTO v_to;
      SELECT l.due_from INTO v_found FROM hawser.least_due('nats', p_later_from) AS l;
      SELECT count(*) INTO v_new FROM (
        SELECT FROM hawser.outbox AS o WHERE o.xid >= v_xmax
        UNION ALL
        SELECT FROM hawser.outbox AS o WHERE o.xid = ANY (v_xip)
        LIMIT @OutboxConstants.sorted_messages@
      ) AS n;
    END IF;
    IF v_new < @OutboxConstants.sorted_messages@ THEN
      -- By xids: in the order of ids, all that was ever enqueued would be passed.
      OPEN v_messages FOR
        SELECT n.* FROM (
                 SELECT o.* FROM hawser.outbox AS o WHERE o.xid >= v_xmax
                 UNION ALL
                 SELECT o.* FROM hawser.outbox AS o WHERE o.xid = ANY (v_xip)
               ) AS n
         WHERE pg_visible_in_snapshot(n.xid, v_to) AND n.id > p_read_after
         ORDER BY n.id LIMIT p_max_messages + 1;
    ELSE
      -- By ids: each page that sorted the whole set would cost as much as the first, which may be too much already.
      OPEN v_messages FOR
        SELECT n.* FROM (SELECT o.* FROM hawser.outbox AS o WHERE o.id > p_read_after ORDER BY o.id OFFSET 0) AS n
         WHERE (n.xid >= v_xmax OR n.xid = ANY (v_xip)) AND pg_visible_in_snapshot(n.xid, v_to)
         LIMIT p_max_messages + 1;
    END IF;
    LOOP
      FETCH v_messages INTO v_message;
      EXIT WHEN NOT FOUND;
      v_bytes := v_bytes + octet_length(v_message.payload) + coalesce(octet_length(v_message.headers::text), 0);
      v_has_more := v_count > 0 AND (v_count = p_max_messages OR v_bytes > p_max_bytes);
      EXIT WHEN v_has_more;
      v_count := v_count + 1;
      id := v_message.id;
      destination := v_message.destination;
      payload := v_message.payload;
      headers := v_message.headers;
      key := v_message.key;
      message_id := v_message.message_id;
      to_stream := v_message.to_stream;
      domain := v_message.domain;
      enqueued_at := v_message.enqueued_at;
      first_enqueued_at := v_message.first_enqueued_at;
      copy_of := v_message.copy_of;
      RETURN NEXT;
    END LOOP;
    CLOSE v_messages;
  END IF;

  id := NULL;
  payload := NULL;
  IF p_dead IS NOT NULL THEN
    INSERT INTO hawser.dead_letters (origin, source, topic, payload, headers, error_code, error_message, attempts, message_id)
    SELECT DISTINCT ON (o.destination, o.message_id, o.payload)
           'outbox', CASE WHEN o.to_stream THEN coalesce(o.domain, '') ELSE 'core' END, o.destination, o.payload, (
             SELECT jsonb_agg(jsonb_build_array(h.key, v.value))
               FROM jsonb_each(o.headers) AS h,
                    jsonb_array_elements(CASE jsonb_typeof(h.value) WHEN 'array' THEN h.value ELSE jsonb_build_array(h.value) END) AS v
           ), d.code, d.message, d.attempts, o.message_id
      FROM jsonb_to_recordset(p_dead) AS d (id bigint, code text, message text, attempts integer)
      JOIN hawser.outbox AS o ON o.id = d.id
     -- What was written into the outbox again is one dead letter with the first one.
     WHERE NOT EXISTS (
       SELECT FROM hawser.dead_letters AS k
        WHERE k.message_id = o.message_id AND k.origin = 'outbox' AND k.topic = o.destination AND k.payload = o.payload
     )
     ORDER BY o.destination, o.message_id, o.payload, o.id;
  END IF;
  IF v_count > 0 AND NOT v_saves THEN
    INSERT INTO hawser.outbox_turns (turn, owner, done_from, done_to, done_after, skipped, cluster)
    VALUES (p_turn, p_owner, p_done_from, p_done_to, p_done_after, p_skipped, v_latest.cluster);
    v_saves := true;
  END IF;
  -- The commit of what is saved puts everything on disk that was read.
  state := CASE WHEN v_saves THEN 'saved' ELSE 'read' END;
  brought := v_due.brought;
  due_from := least(v_due.due_from, v_found);
  due_in_ms := least(v_due.due_in_ms, ceil(extract(epoch FROM v_found - clock_timestamp()) * 1000));
  done_to := v_to;
  has_more := v_has_more;
  RETURN NEXT;
END
