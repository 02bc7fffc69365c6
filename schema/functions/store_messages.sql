#variable_conflict use_column
BEGIN
  -- A snapshot from before the wait for the lock would let a late write through.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'hawser.store_messages needs READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'invalid_transaction_state';
  END IF;

  PERFORM pg_advisory_xact_lock_shared(hashtextextended('hawser:fence:' || p_name, 0));
  -- A statement of its own, so that it sees what was committed while the lock was waited for.
  held := EXISTS (SELECT FROM hawser.peers AS p WHERE p.name = p_name AND p.epoch = p_epoch);
  inserted := 0;
  IF NOT held THEN
    RETURN;
  END IF;

  -- A sender whose cached key is from before a failover must not write into a channel of someone else.
  IF NOT EXISTS (
    SELECT FROM hawser.conn_key_map AS m WHERE m.connection_key = p_connection_key AND m.sender_name = p_name
  ) THEN
    RAISE EXCEPTION 'channel % is not one of sender "%"', p_connection_key, p_name
      USING ERRCODE = 'foreign_key_violation', HINT = 'Look the connection key up again.';
  END IF;

  IF octet_length(p_payloads) IS DISTINCT FROM (SELECT coalesce(sum(l), 0) FROM unnest(p_lengths) AS l) THEN
    RAISE EXCEPTION 'the lengths of the payloads do not add up to the % bytes given', octet_length(p_payloads)
      USING ERRCODE = 'invalid_parameter_value';
  END IF;

  -- Hardly ever is a row there already (the answer to an earlier call was lost), and an insert that reckons with it takes
  -- a third longer.
  BEGIN
    INSERT INTO hawser.conn_messages (connection_key, payload, epoch, number, topic_key, headers, codec)
    SELECT p_connection_key,
           substring(p_payloads FROM (m.past - m.length + 1)::integer FOR m.length),
           p_epoch,
           p_first_number + m.nth - 1,
           m.topic_key,
           nullif(p_headers -> (m.nth - 1)::integer, 'null'::jsonb),
           m.codec
      FROM (
        SELECT u.topic_key, u.length, u.codec, u.nth, sum(u.length) OVER (ORDER BY u.nth) AS past
          FROM unnest(p_topic_keys, p_lengths, p_codecs) WITH ORDINALITY AS u (topic_key, length, codec, nth)
      ) AS m
     ORDER BY m.nth;
  EXCEPTION WHEN unique_violation THEN
    INSERT INTO hawser.conn_messages (connection_key, payload, epoch, number, topic_key, headers, codec)
    SELECT p_connection_key,
           substring(p_payloads FROM (m.past - m.length + 1)::integer FOR m.length),
           p_epoch,
           p_first_number + m.nth - 1,
           m.topic_key,
           nullif(p_headers -> (m.nth - 1)::integer, 'null'::jsonb),
           m.codec
      FROM (
        SELECT u.topic_key, u.length, u.codec, u.nth, sum(u.length) OVER (ORDER BY u.nth) AS past
          FROM unnest(p_topic_keys, p_lengths, p_codecs) WITH ORDINALITY AS u (topic_key, length, codec, nth)
      ) AS m
     ORDER BY m.nth
    ON CONFLICT (connection_key, epoch, number) DO NOTHING;
  END;
  GET DIAGNOSTICS inserted = ROW_COUNT;
END
