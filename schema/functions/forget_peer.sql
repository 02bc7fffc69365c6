#variable_conflict use_column
DECLARE
  v_what CONSTANT text := 'peer:' || p_name;
  v_now_ms CONSTANT bigint := floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint;
  v_keys integer[];
BEGIN
  channels := 0;
  names := '{}';
  count := 0;
  kept := '{}';
  IF starts_with(p_name, @QueueConstants.reserved_prefix@) OR NOT (
    EXISTS (SELECT FROM hawser_peer_data.peers AS p WHERE p.name = p_name)
    OR EXISTS (SELECT FROM hawser_peer_data.listeners AS t WHERE t.listener_name = p_name)
    OR EXISTS (SELECT FROM hawser_peer_data.channels AS m WHERE p_name IN (m.sender_name, m.listener_name, m.listener_name))
    OR EXISTS (SELECT FROM hawser.queue_places('{}') AS a WHERE a.recipient IN ('@' || p_name, @QueueConstants.priority_mark@ || '@' || p_name))
  ) THEN
    refusal := 'unknown';
    RETURN;
  END IF;
  PERFORM hawser.commit_durably();

  -- In the order of all others: dead letters, owners, fences, the directory. Nobody takes the name meanwhile, nor the name of a
  -- sender whose channels go; and nothing is written in these channels.
  PERFORM hawser.lock_dead_letters(true);
  INSERT INTO hawser_data.owners (what, epoch) VALUES (v_what, 0) ON CONFLICT (what) DO NOTHING;
  PERFORM FROM hawser_data.owners AS o
    WHERE o.what = v_what
       OR o.what IN (SELECT 'peer:' || m.sender_name FROM hawser_peer_data.channels AS m WHERE m.listener_name = p_name)
    ORDER BY o.what FOR UPDATE;
  IF EXISTS (SELECT FROM hawser_data.owners AS o WHERE o.what = v_what AND hawser.is_alive(o.pid, o.life)) THEN
    RAISE EXCEPTION 'the peer "%" is running', p_name
      USING ERRCODE = 'object_in_use', HINT = 'Stop it first.';
  END IF;
  PERFORM FROM hawser_data.fences AS f
    WHERE f.what = v_what
       OR f.what IN (SELECT 'peer:' || m.listener_name FROM hawser_peer_data.channels AS m WHERE m.sender_name = p_name)
    ORDER BY f.what FOR UPDATE;

  -- The next epoch of the name must be greater than the last one, of which nothing is left: it comes from the clock.
  IF EXISTS (SELECT FROM hawser_data.owners AS o WHERE o.what = v_what AND o.epoch >= v_now_ms) THEN
    refusal := 'clock';
    RETURN;
  END IF;

  -- As sender or as listener. What another has taken over from it is not its own any more.
  v_keys := ARRAY(
    SELECT m.channel_id FROM hawser_peer_data.channels AS m
     WHERE m.sender_name = p_name OR m.listener_name = p_name
  );
  SELECT coalesce(sum(CASE WHEN s.epoch = c.epoch THEN least(s.messages, s.number - c.number) ELSE s.messages END), 0),
         coalesce(array_agg(DISTINCT m.listener_name), '{}')
    INTO count, names
    FROM hawser_peer_data.stored_messages AS s
    JOIN hawser_peer_data.channels AS m USING (channel_id)
    LEFT JOIN hawser_peer_data.cursors AS c USING (channel_id)
   WHERE s.channel_id = ANY (v_keys) AND (s.epoch, s.number) > (coalesce(c.epoch, 0), coalesce(c.number, 0));
  IF count = 0 THEN
    SELECT count(*), ARRAY[p_name]
      INTO count, names
      FROM (SELECT DISTINCT a.topic, a.recipient FROM hawser.queue_places('{}') AS a WHERE a.recipient IN ('@' || p_name, @QueueConstants.priority_mark@ || '@' || p_name)) AS p
      JOIN hawser_data.queue AS q ON q.topic = p.topic AND q.recipient = p.recipient;
  END IF;
  IF count > 0 THEN
    refusal := 'messages';
    RETURN;
  END IF;
  count := (SELECT count(*) FROM hawser_data.dead_letters AS d WHERE d.channel_id = ANY (v_keys) OR (d.origin = 'queue' AND d.source IN ('@' || p_name, @QueueConstants.priority_mark@ || '@' || p_name)));
  IF count > 0 THEN
    refusal := 'dead_letters';
    RETURN;
  END IF;
  -- A sender that runs, or may, has the ids of its channels in memory: these stay.
  kept := ARRAY(
    SELECT DISTINCT m.sender_name
      FROM hawser_peer_data.channels AS m
     WHERE m.channel_id = ANY (v_keys) AND m.sender_name <> p_name
       AND (
         EXISTS (SELECT FROM hawser_peer_data.peers AS p WHERE p.name = m.sender_name AND NOT p.clean)
         OR EXISTS (SELECT FROM hawser_data.owners AS o WHERE o.what = 'peer:' || m.sender_name AND hawser.is_alive(o.pid, o.life))
       )
     ORDER BY m.sender_name
  );
  v_keys := ARRAY(
    SELECT m.channel_id FROM hawser_peer_data.channels AS m
     WHERE m.channel_id = ANY (v_keys) AND m.sender_name <> ALL (kept)
  );
  DELETE FROM hawser_peer_data.stored_messages AS s WHERE s.channel_id = ANY (v_keys);
  DELETE FROM hawser_peer_data.cursors AS c WHERE c.channel_id = ANY (v_keys);
  -- The directory before the routes, as in leave_directory. Running senders read both again within seconds, and choose others.
  PERFORM FROM hawser_data.fences AS f WHERE f.what = 'directory' FOR UPDATE;
  DELETE FROM hawser_peer_data.listeners AS t WHERE t.listener_name = p_name;
  DELETE FROM hawser_peer_data.routes AS s
   WHERE split_part(s.sender_key, ':', 1) = p_name
      OR s.listener_name = p_name;
  DELETE FROM hawser_peer_data.channels AS m WHERE m.channel_id = ANY (v_keys);
  channels := cardinality(v_keys);
  -- One that has just been killed gets no copies for all listeners.
  UPDATE hawser_data.workers AS w SET gone_at = clock_timestamp() WHERE w.name = p_name AND w.gone_at IS NULL;
  DELETE FROM hawser_peer_data.peers AS p WHERE p.name = p_name;
  DELETE FROM hawser_data.fences AS f WHERE f.what = v_what;
  DELETE FROM hawser_data.owners AS o WHERE o.what = v_what;
  PERFORM hawser.record_act('forget_peer', p_name, NULL, jsonb_build_object('channels', channels));
END
