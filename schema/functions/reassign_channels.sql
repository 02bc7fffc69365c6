#variable_conflict use_column
DECLARE
  v_keys integer[];
  v_stored bigint[];
  v_changed boolean;
BEGIN
  IF starts_with(p_to, @QueueConstants.reserved_prefix@) THEN
    RAISE EXCEPTION 'the new listener "%" begins with __#, which is reserved', p_to
      USING ERRCODE = 'invalid_parameter_value', HINT = 'Name another listener.';
  END IF;
  IF starts_with(p_from, @QueueConstants.reserved_prefix@) THEN
    RAISE EXCEPTION 'the old listener "%" begins with __#, which is reserved', p_from
      USING ERRCODE = 'invalid_parameter_value', HINT = 'Name the listener that is away.';
  END IF;
  IF p_from = p_to THEN
    RAISE EXCEPTION 'the channels of "%" cannot be handed over to itself', p_from
      USING ERRCODE = 'invalid_parameter_value', HINT = 'Name another listener.';
  END IF;

  -- Locked to the end, so that the old listener cannot start in between.
  INSERT INTO hawser_data.owners (what, epoch) VALUES ('peer:' || p_from, 0) ON CONFLICT (what) DO NOTHING;
  PERFORM FROM hawser_data.owners AS o WHERE o.what = 'peer:' || p_from FOR UPDATE;
  IF NOT p_force AND EXISTS (SELECT FROM hawser_data.owners AS o WHERE o.what = 'peer:' || p_from AND hawser.is_alive(o.pid, o.life)) THEN
    RAISE EXCEPTION 'the listener "%" is running', p_from
      USING ERRCODE = 'object_in_use', HINT = 'Stop it first, or force it: then it ends with name_lost.';
  END IF;

  -- Alone: waits for the old listener's writes under way and keeps out all later ones until its new epoch is there.
  INSERT INTO hawser_data.fences (what, epoch) VALUES ('peer:' || p_from, 0) ON CONFLICT (what) DO NOTHING;
  PERFORM FROM hawser_data.fences AS f WHERE f.what = 'peer:' || p_from FOR UPDATE;
  -- A statement of its own, so that it sees what was committed while the lock was waited for.
  SELECT array_agg(o.channel_id), array_agg(o.stored)
    INTO v_keys, v_stored
    FROM (
      SELECT m.channel_id,
             (
               SELECT n.counted
                 FROM hawser.count_messages(m.channel_id, coalesce(c.epoch, 0), coalesce(c.number, 0), 2147483647) AS n
             ) AS stored
        FROM hawser_peer_data.channels AS m
        LEFT JOIN hawser_peer_data.cursors AS c ON c.channel_id = m.channel_id
       WHERE coalesce(m.owner, m.listener_name) = p_from
         AND (p_all OR m.channel_id = ANY (p_channel_ids) OR m.retry_of = ANY (p_channel_ids))
       ORDER BY m.channel_id
    ) AS o;
  IF v_keys IS NULL AND NOT p_all THEN
    RETURN;
  END IF;

  PERFORM hawser.end_ownership(p_from, true);
  IF p_all THEN
    UPDATE hawser_peer_data.peers AS p SET replaced = true WHERE p.name = p_from AND NOT p.replaced;
  END IF;
  v_changed := v_keys IS NOT NULL OR (p_all AND FOUND);
  -- For a write that has looked at the owner before, and waits at the fence.
  UPDATE hawser_data.fences AS f SET epoch = o.epoch FROM hawser_data.owners AS o WHERE f.what = 'peer:' || p_from AND o.what = f.what;
  UPDATE hawser_peer_data.channels AS m
     SET owner = nullif(p_to, m.listener_name)
   WHERE m.channel_id = ANY (v_keys);

  -- The peer that registered under the old epoch is gone: nothing new should be stored for it. Rows of operators and
  -- durable listeners go only with everything; what stays is written all the same, so that a listener which still runs
  -- hears of it. Last, because every peer that registers waits for this lock.
  PERFORM FROM hawser_data.fences AS f WHERE f.what = 'directory' FOR UPDATE;
  DELETE FROM hawser_peer_data.listeners AS t
   WHERE t.listener_name = p_from AND (p_all OR (t.epoch > 0 AND NOT t.durable));
  v_changed := v_changed OR FOUND;
  UPDATE hawser_peer_data.listeners AS t SET epoch = 0 WHERE t.listener_name = p_from AND t.epoch > 0;
  IF v_changed THEN
    PERFORM hawser.record_act(
      'reassign', p_from, (SELECT coalesce(sum(o.stored), 0)::bigint FROM unnest(v_stored) AS o (stored)),
      jsonb_build_object('to', p_to, 'channels', coalesce(cardinality(v_keys), 0), 'force', p_force)
    );
  END IF;

  RETURN QUERY
  SELECT m.channel_id, m.channel_name, o.stored
    FROM unnest(v_keys, v_stored) AS o (key, stored)
    JOIN hawser_peer_data.channels AS m ON m.channel_id = o.key
   ORDER BY m.channel_id;
END
