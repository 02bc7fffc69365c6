#variable_conflict use_column
DECLARE
  v_role CONSTANT text := coalesce(nullif(current_setting('role'), 'none'), session_user);
  v_role_id CONSTANT bigint := to_regrole(quote_ident(v_role))::oid::bigint;
  v_before record;
  v_given jsonb := p_headers;
  v_headers jsonb;
  v_done boolean;
BEGIN
  IF p_replaces AND p_while_running THEN
    PERFORM hawser.refuse_argument('hawser.enqueue_unique', 'while_running', 'true', 'does not go with replaces: what runs cannot be replaced');
  END IF;
  IF octet_length(p_payload) NOT BETWEEN 1 AND @peer_payload.max_bytes@ THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('a payload for a peer has %s bytes, and must have 1 to %s', octet_length(p_payload), @peer_payload.max_bytes@),
      HINT = 'Give a payload of that size.';
  END IF;
  PERFORM hawser.check_due('hawser.enqueue_unique', p_deliver_at);
  -- Each round has found something that another transaction has changed meanwhile. With REPEATABLE READ that is an error.
  LOOP
    SELECT u.id, u.has_begun,
           coalesce(u.role_id = v_role_id, false) AND (u.has_begun OR EXISTS (SELECT FROM hawser_data.unique_locks AS l WHERE l.id = u.id))
             AND EXISTS (SELECT FROM hawser_data.queue AS q WHERE q.id = u.id) AS is_there
      INTO v_before
      FROM hawser_data.unique_keys AS u WHERE u.role = v_role AND u.topic = p_topic AND u.unique_key = p_unique_key;
    IF NOT FOUND THEN
      -- This waits for a transaction that is just enqueueing the first message with the key.
      INSERT INTO hawser_data.unique_keys (role, topic, unique_key, id, while_running)
      VALUES (v_role, p_topic, p_unique_key, 0, coalesce(p_while_running, false))
      ON CONFLICT DO NOTHING;
      EXIT WHEN FOUND;
    ELSIF NOT v_before.is_there THEN
      UPDATE hawser_data.unique_keys AS u
         SET id = 0, role_id = v_role_id, while_running = coalesce(p_while_running, false), has_begun = false, payload = NULL, headers = NULL, due_at = NULL
       WHERE u.role = v_role AND u.topic = p_topic AND u.unique_key = p_unique_key AND u.id = v_before.id;
      IF FOUND THEN
        DELETE FROM hawser_data.unique_locks AS l
         WHERE l.id = ANY (ARRAY(SELECT o.id FROM hawser_data.unique_locks AS o WHERE o.id = v_before.id FOR UPDATE SKIP LOCKED));
        EXIT;
      END IF;
    ELSIF p_replaces AND NOT v_before.has_begun THEN
      PERFORM FROM hawser_data.unique_keys AS u
        WHERE u.role = v_role AND u.topic = p_topic AND u.unique_key = p_unique_key AND u.id = v_before.id AND NOT u.has_begun
          FOR NO KEY UPDATE;
      IF FOUND THEN
        IF @traced@ THEN
          v_given := hawser.with_trace(p_headers, @peer_headers.max_items@ - 3);
        END IF;
        IF v_given IS NOT NULL OR p_message_id IS NOT NULL THEN
          v_headers := hawser.peer_headers(v_given, p_message_id);
        END IF;
        UPDATE hawser_data.queue AS q
           SET payload = p_payload, headers = v_headers, due_at = coalesce(p_deliver_at, clock_timestamp()), later_xid = pg_current_xact_id()
         WHERE q.id = v_before.id AND @is_later(q)@;
        IF NOT FOUND THEN
          -- It is in line. A worker may have it, which would wait for the row: it replaces what it has when it begins.
          UPDATE hawser_data.unique_keys AS u SET payload = p_payload, headers = v_headers, due_at = p_deliver_at
           WHERE u.role = v_role AND u.topic = p_topic AND u.unique_key = p_unique_key;
        ELSE
          v_done := hawser.announce_due(coalesce(p_deliver_at, clock_timestamp()));
        END IF;
        id := v_before.id;
        RETURN;
      END IF;
    ELSE
      -- It does not begin before this transaction ends. Others may rely on it, too.
      PERFORM FROM hawser_data.unique_locks AS l WHERE l.id = v_before.id FOR KEY SHARE;
      IF FOUND OR v_before.has_begun THEN
        id := v_before.id;
        RETURN;
      END IF;
    END IF;
  END LOOP;
  id := (hawser.enqueue_peer(p_topic, ARRAY[p_payload], p_headers, NULL, p_message_id, NULL, p_deliver_at, false, p_origin, p_priority))[1];
  UPDATE hawser_data.unique_keys AS u SET id = enqueue_unique_peer.id
   WHERE u.role = v_role AND u.topic = p_topic AND u.unique_key = p_unique_key;
  INSERT INTO hawser_data.unique_locks (id) VALUES (enqueue_unique_peer.id);
  UPDATE hawser_data.queue AS q SET unique_key = p_unique_key WHERE q.id = enqueue_unique_peer.id;
END
