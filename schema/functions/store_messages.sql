#variable_conflict use_column
DECLARE
  v_count integer;
  v_bytes bigint;
  v_least integer;
  v_stored bigint;
  v_stored_from bigint;
  v_batch_messages integer := 1024;
  -- The next message, and where its payload begins.
  v_from integer := 1;
  v_offset integer := 1;
  -- The last message of each run with one topic and one codec.
  v_ends integer[];
  v_end integer;
  -- The rows to write: the first message, how many messages, where their payloads begin, and how long these are in all.
  v_many integer;
  v_firsts integer[] := '{}';
  v_counts integer[] := '{}';
  v_offsets integer[] := '{}';
  v_sizes integer[] := '{}';
BEGIN
  held := hawser.fenced(p_name, p_epoch);
  inserted := 0;
  IF NOT held THEN
    RETURN;
  END IF;

  -- A sender whose cached id is from before a failover must not write into a channel of someone else.
  IF NOT EXISTS (
    SELECT FROM hawser_peer_data.channels AS m WHERE m.channel_id = p_channel_id AND m.sender_name = p_name
  ) THEN
    RAISE EXCEPTION 'channel % is not one of sender "%"', p_channel_id, p_name
      USING ERRCODE = 'foreign_key_violation', HINT = 'Look the channel id up again.';
  END IF;

  SELECT count(l), coalesce(sum(l), 0), coalesce(min(l), 0) INTO v_count, v_bytes, v_least FROM unnest(p_lengths) AS l;
  IF octet_length(p_payloads) IS DISTINCT FROM v_bytes OR v_least < 0 THEN
    RAISE EXCEPTION 'the lengths of the payloads do not add up to the % bytes given', octet_length(p_payloads)
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF (v_count, v_count, v_count) IS DISTINCT FROM (cardinality(p_lengths), cardinality(p_topic_ids), cardinality(p_codecs)) THEN
    RAISE EXCEPTION 'there are % topic ids, % lengths and % codecs, which must be as many',
      cardinality(p_topic_ids), v_count, cardinality(p_codecs) USING ERRCODE = 'invalid_parameter_value';
  END IF;

  -- Hardly ever: the answer to an earlier call was lost, which has stored the first ones, or all.
  v_stored := (
    SELECT c.number FROM hawser_peer_data.stored_messages AS c
     WHERE c.channel_id = p_channel_id AND c.epoch = p_epoch AND c.number >= p_first_number
     ORDER BY c.channel_id DESC, c.epoch DESC, c.number DESC LIMIT 1
  );
  IF v_stored IS NOT NULL THEN
    v_stored_from := (
      SELECT c.number - c.messages + 1 FROM hawser_peer_data.stored_messages AS c
       WHERE c.channel_id = p_channel_id AND c.epoch = p_epoch AND c.number >= p_first_number
       ORDER BY c.channel_id, c.epoch, c.number LIMIT 1
    );
    IF v_stored_from <= p_first_number OR EXISTS (
      SELECT FROM hawser_peer_data.cursors AS n
       WHERE n.channel_id = p_channel_id AND (n.epoch, n.number + 1) >= (p_epoch, v_stored_from)
    ) THEN
      v_from := least(v_stored - p_first_number + 2, v_count + 1);
      v_offset := 1 + coalesce((SELECT sum(l) FROM unnest(p_lengths[1 : v_from - 1]) AS l), 0);
    ELSE
      -- Some were left out, or deleted by hand: as rows of their own all find their place.
      v_batch_messages := 1;
    END IF;
  END IF;

  v_ends := ARRAY[v_count];
  IF p_topic_ids <> array_fill(p_topic_ids[1], v_ends) OR p_codecs <> array_fill(p_codecs[1], v_ends) THEN
    v_ends := ARRAY(
      SELECT n.nth
        FROM (
          SELECT u.nth, (u.topic_id, u.codec) IS DISTINCT FROM (lead(u.topic_id) OVER w, lead(u.codec) OVER w) AS is_last
            FROM unnest(p_topic_ids, p_codecs) WITH ORDINALITY AS u (topic_id, codec, nth)
          WINDOW w AS (ORDER BY u.nth)
        ) AS n
       WHERE n.is_last
       ORDER BY n.nth
    );
  END IF;
  FOREACH v_end IN ARRAY v_ends LOOP
    WHILE v_from <= v_end LOOP
      v_many := least(v_end - v_from + 1, v_batch_messages);
      LOOP
        IF v_many = 1 THEN
          v_bytes := p_lengths[v_from];
          EXIT;
        END IF;
        v_bytes := (SELECT sum(l) FROM unnest(p_lengths[v_from : v_from + v_many - 1]) AS l);
        EXIT WHEN v_bytes <= 262144;
        v_many := greatest(1, least(v_many - 1, v_many::bigint * 262144 / v_bytes));
      END LOOP;
      v_firsts := v_firsts || v_from;
      v_counts := v_counts || v_many;
      v_offsets := v_offsets || v_offset;
      v_sizes := v_sizes || v_bytes::integer;
      v_from := v_from + v_many;
      v_offset := v_offset + v_bytes;
    END LOOP;
  END LOOP;

  -- A row may be there all the same: of a call that has not ended yet, and that this one has waited for.
  WITH new AS (
    INSERT INTO hawser_peer_data.stored_messages (channel_id, payload, epoch, number, topic_id, headers, codec, messages, lengths)
    SELECT p_channel_id,
           substring(p_payloads FROM r.past FOR r.size),
           p_epoch,
           p_first_number + r.first + r.count - 2,
           p_topic_ids[r.first],
           CASE
             WHEN r.count = 1 THEN nullif(p_headers -> (r.first - 1), 'null'::jsonb)
             WHEN p_headers IS NOT NULL THEN
               jsonb_path_query_array(
                 p_headers, '$[$first to $last]', jsonb_build_object('first', r.first - 1, 'last', r.first + r.count - 2)
               )
           END,
           p_codecs[r.first],
           r.count,
           CASE WHEN r.count = 1 THEN '{}' ELSE p_lengths[r.first : r.first + r.count - 1] END
      FROM unnest(v_firsts, v_counts, v_offsets, v_sizes) AS r (first, count, past, size)
     ORDER BY r.first
    ON CONFLICT (channel_id, epoch, number) DO NOTHING
    RETURNING messages
  )
  SELECT coalesce(sum(n.messages), 0) INTO inserted FROM new AS n;
  -- What an earlier call has committed may not have reached a synchronous standby yet: only a commit that writes waits for that.
  IF inserted < v_count THEN
    PERFORM pg_logical_emit_message(true, 'hawser', '');
  END IF;
END
