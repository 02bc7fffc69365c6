#variable_conflict use_column
DECLARE
  v_seqscan text := current_setting('enable_seqscan');
  -- The channels of the call that the listener owns, in key order, with their new cursors; all the same length.
  v_keys integer[];
  v_epochs bigint[];
  v_numbers bigint[];
  -- Their old cursors; read only for dead letters.
  v_old_epochs bigint[];
  v_old_numbers bigint[];
  v_moved integer[];
BEGIN
  -- A snapshot from before the wait for the lock would let a late write through.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'hawser.commit_cursors needs READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'invalid_transaction_state';
  END IF;

  PERFORM pg_advisory_xact_lock_shared(hashtextextended('hawser:fence:' || p_name, 0));
  -- A statement of its own, so that it sees what was committed while the lock was waited for.
  held := EXISTS (SELECT FROM hawser.peers AS p WHERE p.name = p_name AND p.epoch = p_epoch);
  IF NOT held THEN
    RETURN NEXT;
    RETURN;
  END IF;

  -- The tables grow from nothing to millions of rows while a plan made for the empty ones is still cached.
  PERFORM set_config('enable_seqscan', 'off', true);

  SELECT array_agg(o.key ORDER BY o.key), array_agg(o.epoch ORDER BY o.key), array_agg(o.number ORDER BY o.key)
    INTO v_keys, v_epochs, v_numbers
    FROM unnest(p_connection_keys, p_cursor_epochs, p_cursors) AS o (key, epoch, number)
    JOIN hawser.conn_key_map AS m ON m.connection_key = o.key
   WHERE coalesce(m.owner, m.listener_name) = p_name;

  -- All rows are locked in key order, absent ones made, so that two commits never wait for each other in a circle.
  IF p_dead_letters IS NOT NULL THEN
    WITH locked AS (
      INSERT INTO hawser.conn_mess_number AS c (connection_key)
      SELECT k FROM unnest(v_keys) AS k
      ON CONFLICT (connection_key) DO UPDATE SET attempts = c.attempts
      RETURNING c.connection_key, c.epoch, c.v
    )
    SELECT array_agg(l.epoch ORDER BY l.connection_key), array_agg(l.v ORDER BY l.connection_key)
      INTO v_old_epochs, v_old_numbers
      FROM locked AS l;
  END IF;

  WITH moved AS (
    INSERT INTO hawser.conn_mess_number AS c (connection_key, epoch, v)
    SELECT n.key, n.epoch, n.number FROM unnest(v_keys, v_epochs, v_numbers) AS n (key, epoch, number)
    ON CONFLICT (connection_key) DO UPDATE
      SET epoch = excluded.epoch, v = excluded.v, attempts = 0
      WHERE (c.epoch, c.v) < (excluded.epoch, excluded.v)
    RETURNING c.connection_key
  )
  SELECT array_agg(moved.connection_key) INTO v_moved FROM moved;

  -- What the cursor has passed, also where an earlier call moved it. By ctid over a lateral look-up: no other plan
  -- stays cheap for both few and many stored rows.
  DELETE FROM hawser.conn_messages AS d
   WHERE d.ctid = ANY (ARRAY(
     SELECT s.ctid
       FROM unnest(v_keys, v_epochs, v_numbers) AS n (key, epoch, number)
      CROSS JOIN LATERAL (
        SELECT r.ctid
          FROM hawser.conn_messages AS r
         WHERE r.connection_key = n.key AND (r.epoch, r.number) <= (n.epoch, n.number)
        OFFSET 0
      ) AS s
   ));

  IF p_dead_letters IS NOT NULL THEN
    INSERT INTO hawser.dead_letters
      (origin, source, topic, payload, headers, error_code, error_message, attempts, connection_key, epoch, number)
    SELECT 'peer', l.source, l.topic, substring(p_dead_payloads FROM (l.past - l.payload_bytes + 1)::integer
           FOR l.payload_bytes), nullif(l.headers, 'null'::jsonb), l.error_code, l.error_message, l.attempts,
           l.connection_key, l.epoch, l.number
      FROM (
        SELECT j.*, sum(j.payload_bytes) OVER (ORDER BY j.nth) AS past
          FROM ROWS FROM (jsonb_to_recordset(p_dead_letters) AS (
            connection_key integer, epoch bigint, number bigint, source text, topic text, payload_bytes integer,
            headers jsonb, error_code text, error_message text, attempts integer
          )) WITH ORDINALITY AS j (
            connection_key, epoch, number, source, topic, payload_bytes, headers, error_code, error_message, attempts,
            nth
          )
      ) AS l
      JOIN unnest(v_keys, v_epochs, v_numbers, v_old_epochs, v_old_numbers)
           AS n (key, epoch, number, old_epoch, old_number) ON n.key = l.connection_key
     WHERE (l.epoch, l.number) > (n.old_epoch, n.old_number) AND (l.epoch, l.number) <= (n.epoch, n.number);
  END IF;

  PERFORM set_config('enable_seqscan', v_seqscan, true);
  RETURN QUERY
  SELECT true, a.key, CASE WHEN o.key IS NOT NULL THEN m.key IS NOT NULL END
    FROM unnest(p_connection_keys) AS a (key)
    LEFT JOIN unnest(v_keys) AS o (key) ON o.key = a.key
    LEFT JOIN unnest(v_moved) AS m (key) ON m.key = a.key;
END
