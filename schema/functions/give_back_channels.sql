#variable_conflict use_column
BEGIN
  -- Exclusive: no write of the listener is under way that has seen it as the owner, and no dead letter is retried for it.
  PERFORM FROM hawser_data.fences AS f WHERE f.what = 'peer:' || p_name FOR UPDATE;
  held := hawser.fenced(p_name, p_epoch);
  IF NOT held THEN
    RETURN NEXT;
    RETURN;
  END IF;

  RETURN QUERY
  WITH heirs AS MATERIALIZED (
    SELECT g.key, CASE
             WHEN g.topic_id > 0 THEN (SELECT a.heir FROM hawser.heir_of_channel(p_name, g.key, g.topic_id) AS a)
             ELSE (
               SELECT p.name
                 FROM hawser_peer_data.channels AS o
                 LEFT JOIN hawser_peer_data.channels AS b ON b.channel_id = o.retry_of
                 JOIN hawser_peer_data.peers AS p ON p.name = coalesce(b.listener_name, o.listener_name) AND p.group_name IS NOT NULL
                WHERE o.channel_id = g.key AND p.name <> p_name
                  -- It has registered under its present epoch: it was started again since its channels were taken over.
                  AND EXISTS (SELECT FROM hawser_peer_data.listeners AS t WHERE t.listener_name = p.name AND t.epoch = p.epoch)
             )
           END AS name
      FROM unnest(p_channel_ids, p_topic_ids) AS g (key, topic_id)
  ), back AS (
    UPDATE hawser_peer_data.channels AS m
       -- A retry channel is nobody's by itself.
       SET owner = CASE WHEN m.retry_of IS NULL THEN nullif(h.name, m.listener_name) ELSE h.name END
      FROM heirs AS h
     WHERE m.channel_id = h.key AND m.owner = p_name AND h.name IS NOT NULL
    RETURNING m.channel_id, m.channel_name, h.name
  )
  SELECT true, b.channel_id, b.channel_name, b.name FROM back AS b ORDER BY b.channel_id;
END
