#variable_conflict use_column
DECLARE
  -- The cursors before, in the order of channels.
  v_old_keys integer[];
  v_old_epochs bigint[];
  v_old_numbers bigint[];
  v_fault text;
BEGIN
  -- The caller holds the fence of the name.
  held := EXISTS (SELECT FROM hawser_peer_data.peers AS p WHERE p.name = p_name AND p.epoch = p_epoch);
  IF NOT held THEN
    RETURN;
  END IF;

  IF p_dead_letters IS NOT NULL THEN
    SELECT hawser.dead_letter_fault('peer', '', coalesce(j.topic, ''), nullif(j.headers, 'null'::jsonb), NULL) INTO v_fault
      FROM jsonb_to_recordset(p_dead_letters) AS j (topic text, headers jsonb)
     ORDER BY 1 NULLS LAST LIMIT 1;
    IF v_fault IS NULL AND octet_length(p_dead_payloads) IS DISTINCT FROM (
      SELECT CASE WHEN min(j.payload_bytes) >= 0 THEN sum(j.payload_bytes) END
        FROM jsonb_to_recordset(p_dead_letters) AS j (payload_bytes integer)
    ) THEN
      v_fault := format('the lengths of the payloads do not add up to the %s bytes given', octet_length(p_dead_payloads));
    END IF;
    IF v_fault IS NULL AND EXISTS (
      SELECT FROM jsonb_to_recordset(p_dead_letters) AS j (failures jsonb)
       WHERE octet_length(j.failures::text) > @dead_letter_failures.max_bytes@
    ) THEN
      v_fault := 'its failed attempts are too large';
    END IF;
    IF v_fault IS NOT NULL THEN
      RAISE EXCEPTION 'a dead letter of "%" is refused: %', p_name, v_fault
        USING ERRCODE = 'invalid_parameter_value', HINT = 'Give the message as it was received.';
    END IF;
  END IF;

  SELECT array_agg(l.channel_id), array_agg(l.epoch), array_agg(l.number)
    INTO v_old_keys, v_old_epochs, v_old_numbers
    FROM hawser.lock_cursors(ARRAY(
      SELECT m.channel_id FROM hawser_peer_data.channels AS m
       WHERE m.channel_id = ANY (p_channel_ids) AND coalesce(m.owner, m.listener_name) = p_name
    )) AS l;

  -- Waits for a handler's transaction that has marked the same message: what is done is no dead letter.
  WITH letters AS (
    SELECT j.*, sum(j.payload_bytes) OVER (ORDER BY j.nth) AS past
      FROM ROWS FROM (jsonb_to_recordset(coalesce(p_dead_letters, '[]')) AS (
        channel_id integer, epoch bigint, number bigint, topic text, payload_bytes integer,
        headers jsonb, error_code text, error_message text, attempts integer, stack text, failures jsonb
      )) WITH ORDINALITY AS j (
        channel_id, epoch, number, topic, payload_bytes, headers, error_code, error_message, attempts, stack, failures, nth
      )
  ), marked AS (
    INSERT INTO hawser_peer_data.marks (channel_id, epoch, number)
    SELECT a.key, a.epoch, a.number
      FROM (
        SELECT l.channel_id, l.epoch, l.number FROM letters AS l
        UNION
        SELECT (d.mark ->> 0)::integer, (d.mark ->> 1)::bigint, (d.mark ->> 2)::bigint
          FROM jsonb_array_elements(coalesce(p_done, '[]')) AS d (mark)
      ) AS a (key, epoch, number)
      JOIN unnest(v_old_keys, v_old_epochs, v_old_numbers) AS o (key, epoch, number) USING (key)
     WHERE (a.epoch, a.number) > (o.epoch, o.number)
     ORDER BY a.key, a.epoch, a.number
    ON CONFLICT (channel_id, epoch, number) DO NOTHING
    RETURNING channel_id, epoch, number
  ), gone AS (
    -- Only what the caller names as no longer parked: what has a mark may still be parked.
    DELETE FROM hawser_peer_data.parked_messages AS p
     USING (
       SELECT l.channel_id, l.epoch, l.number FROM letters AS l
       UNION
       SELECT (d.parked ->> 0)::integer, (d.parked ->> 1)::bigint, (d.parked ->> 2)::bigint
         FROM jsonb_array_elements(coalesce(p_unparked, '[]')) AS d (parked)
     ) AS a (key, epoch, number)
     WHERE a.key = ANY (v_old_keys) AND p.channel_id = a.key AND p.epoch = a.epoch AND p.number = a.number
    RETURNING p.channel_id, p.epoch, p.number
  )
  INSERT INTO hawser_data.dead_letters
    (origin, source, topic, payload, headers, error_code, error_message, attempts, stack, failures, channel_id,
     epoch, number, worker)
  SELECT 'peer', m.channel_name, l.topic,
         substring(p_dead_payloads FROM (l.past - l.payload_bytes + 1)::integer FOR l.payload_bytes),
         nullif(l.headers, 'null'::jsonb),
         left(l.error_code, @dead_letter_error_code.max_bytes@), l.error_message, l.attempts,
         l.stack, nullif(l.failures, 'null'::jsonb), l.channel_id, l.epoch, l.number, p_name
    FROM letters AS l
    JOIN (SELECT * FROM marked UNION SELECT * FROM gone) AS n USING (channel_id, epoch, number)
    JOIN hawser_peer_data.channels AS m USING (channel_id)
   ORDER BY l.nth;
END
