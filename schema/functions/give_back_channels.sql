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
             WHEN g.topic_key > 0 THEN (SELECT a.heir FROM hawser.heir_of_channel(p_name, g.key, g.topic_key) AS a)
             ELSE (
               SELECT p.name
                 FROM hawser_data.channels AS o
                 LEFT JOIN hawser_data.channels AS b ON b.connection_key = o.retry_of
                 JOIN hawser_data.peers AS p ON p.name = coalesce(b.listener_name, o.listener_name) AND p.group_name IS NOT NULL
                WHERE o.connection_key = g.key AND p.name <> p_name
                  -- It has registered under its present epoch: it was started again since its channels were taken over.
                  AND EXISTS (SELECT FROM hawser_data.listeners AS t WHERE t.client_name = p.name AND t.epoch = p.epoch)
             )
           END AS name
      FROM unnest(p_connection_keys, p_topic_keys) AS g (key, topic_key)
  ), back AS (
    UPDATE hawser_data.channels AS m
       -- A retry channel is nobody's by itself.
       SET owner = CASE WHEN m.retry_of IS NULL THEN nullif(h.name, m.listener_name) ELSE h.name END
      FROM heirs AS h
     WHERE m.connection_key = h.key AND m.owner = p_name AND h.name IS NOT NULL
    RETURNING m.connection_key, m.composite, h.name
  )
  SELECT true, b.connection_key, b.composite, b.name FROM back AS b ORDER BY b.connection_key;
END
