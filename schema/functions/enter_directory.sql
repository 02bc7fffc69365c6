#variable_conflict use_column
BEGIN
  held := hawser.fenced(p_name, p_epoch);
  IF NOT held THEN
    RETURN;
  END IF;

  -- Before the directory, whose readers look here.
  UPDATE hawser_peer_data.peers AS p
     SET group_name = p_group_name, replaced = false, version = p_version, certificate_ends_at = p_certificate_ends_at
   WHERE p.name = p_name
     AND (p.replaced
          OR (p.group_name, p.version, p.certificate_ends_at) IS DISTINCT FROM (p_group_name, p_version, p_certificate_ends_at));

  -- One writer at a time: two that take over each other's rows would wait in a circle, and NOTIFY serialises them anyway.
  PERFORM FROM hawser_data.fences AS f WHERE f.what = 'directory' FOR UPDATE;
  IF p_only THEN
    -- What is overwritten below stays: nobody is told that it went.
    DELETE FROM hawser_peer_data.listeners AS t
     WHERE t.listener_name = p_name
       AND NOT EXISTS (SELECT FROM unnest(p_topics) AS s (topic) WHERE s.topic = t.topic AND t.addr = p_addr);
  END IF;
  INSERT INTO hawser_peer_data.listeners AS t (topic, addr, listener_name, epoch, max_message_bytes, durable, subscribed)
  SELECT s.topic, p_addr, p_name, p_epoch, p_max_message_bytes, p_durable, s.subscribed
    FROM unnest(p_topics, p_subscribed) AS s (topic, subscribed)
  ON CONFLICT (topic, addr) DO UPDATE
    SET listener_name = excluded.listener_name,
        epoch = excluded.epoch,
        max_message_bytes = excluded.max_message_bytes,
        durable = excluded.durable,
        subscribed = excluded.subscribed,
        registered_at = now();
END
