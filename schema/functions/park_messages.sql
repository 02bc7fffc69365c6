#variable_conflict use_column
DECLARE
  -- The cursor.
  v_epoch bigint;
  v_number bigint;
  v_done boolean;
BEGIN
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  held := hawser.fenced(p_name, p_epoch);
  owned := held AND EXISTS (
    SELECT FROM hawser_peer_data.channels AS m
     WHERE m.channel_id = p_channel_id AND coalesce(m.owner, m.listener_name) = p_name
  );
  IF NOT owned THEN
    RETURN;
  END IF;
  IF octet_length(p_payloads) IS DISTINCT FROM (
    SELECT CASE WHEN min(least(j.header_bytes, j.payload_bytes)) >= 0 THEN sum(j.header_bytes + j.payload_bytes) END
      FROM jsonb_to_recordset(p_messages) AS j (header_bytes integer, payload_bytes integer)
  ) THEN
    RAISE EXCEPTION 'messages of "%" are not parked: the lengths do not add up to the % bytes given', p_name, octet_length(p_payloads)
      USING ERRCODE = 'invalid_parameter_value';
  END IF;

  -- The cursor's row is locked before marks are inserted, as by commit_cursors.
  SELECT l.epoch, l.number INTO v_epoch, v_number FROM hawser.lock_cursors(ARRAY[p_channel_id]) AS l;

  UPDATE hawser_peer_data.parked_messages AS p
     SET attempts = j.attempts, due_at = clock_timestamp() + make_interval(secs => j.delay_ms / 1000.0)
    FROM jsonb_to_recordset(p_messages) AS j (epoch bigint, number bigint, attempts integer, delay_ms bigint)
   WHERE p.channel_id = p_channel_id AND p.epoch = j.epoch AND p.number = j.number;

  -- Waits for a handler's transaction that has marked the same message: what is done is not parked.
  WITH messages AS (
    SELECT j.*, sum(j.header_bytes + j.payload_bytes) OVER (ORDER BY j.nth) - j.payload_bytes AS past
      FROM ROWS FROM (jsonb_to_recordset(p_messages) AS (
        epoch bigint, number bigint, topic_id integer, compression integer, uncompressed_bytes bigint, attempts integer,
        delay_ms bigint, header_bytes integer, payload_bytes integer
      )) WITH ORDINALITY AS j (
        epoch, number, topic_id, compression, uncompressed_bytes, attempts, delay_ms, header_bytes, payload_bytes, nth
      )
  ), marked AS (
    INSERT INTO hawser_peer_data.marks (channel_id, epoch, number)
    SELECT p_channel_id, j.epoch, j.number
      FROM messages AS j
     WHERE (j.epoch, j.number) > (v_epoch, v_number)
     ORDER BY j.epoch, j.number
    ON CONFLICT (channel_id, epoch, number) DO NOTHING
    RETURNING epoch, number
  )
  INSERT INTO hawser_peer_data.parked_messages
    (channel_id, epoch, number, topic_id, compression, uncompressed_bytes, headers, payload, attempts, due_at)
  SELECT p_channel_id, j.epoch, j.number, j.topic_id, j.compression, j.uncompressed_bytes,
         CASE WHEN j.header_bytes > 0 THEN substring(p_payloads FROM (j.past - j.header_bytes + 1)::integer FOR j.header_bytes) END,
         substring(p_payloads FROM (j.past + 1)::integer FOR j.payload_bytes),
         j.attempts, clock_timestamp() + make_interval(secs => j.delay_ms / 1000.0)
    FROM messages AS j
    JOIN marked AS m USING (epoch, number);

  IF EXISTS (
    SELECT FROM hawser_peer_data.parked_messages AS p
     WHERE p.channel_id = p_channel_id
    HAVING count(*) > @StoreConstants.parked_messages@ OR sum(octet_length(p.payload)) > @StoreConstants.parked_bytes@
  ) THEN
    RAISE EXCEPTION 'channel % would have more than @StoreConstants.parked_messages@ parked messages, or @StoreConstants.parked_bytes@ bytes of them', p_channel_id
      USING ERRCODE = 'program_limit_exceeded', HINT = 'Park no more until some are done.';
  END IF;
END
