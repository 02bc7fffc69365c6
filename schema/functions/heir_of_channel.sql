#variable_conflict use_column
DECLARE
  v_names text[];
  v_home text;
  v_running text[];
BEGIN
  owned := EXISTS (
    SELECT FROM hawser_peer_data.channels AS m
     WHERE m.channel_id = p_channel_id AND coalesce(m.owner, m.listener_name) = p_name
  );
  SELECT coalesce(b.listener_name, m.listener_name),
         ARRAY(
           SELECT a.name
             FROM (
               SELECT t.listener_name AS name FROM hawser_peer_data.listeners AS t WHERE t.topic = k.topic
               UNION
               -- It left the directory when it stopped, or when its channels were taken over.
               SELECT s.listener_name
                 FROM hawser_peer_data.routes AS s
                WHERE s.sender_key = m.sender_name || ':' || m.source_topic AND s.listener_topic = k.topic
                  AND s.listener_name = coalesce(b.listener_name, m.listener_name)
                  AND NOT EXISTS (SELECT FROM hawser_peer_data.peers AS p WHERE p.name = s.listener_name AND p.replaced)
             ) AS a
            WHERE a.name <> p_name
              -- One that has registered under its present epoch serves what it has registered then, and nothing else.
              AND NOT EXISTS (
                SELECT FROM hawser_peer_data.peers AS p
                 WHERE p.name = a.name
                   AND EXISTS (SELECT FROM hawser_peer_data.listeners AS t WHERE t.listener_name = p.name AND t.epoch = p.epoch)
                   AND NOT EXISTS (
                     SELECT FROM hawser_peer_data.listeners AS t WHERE t.listener_name = p.name AND t.epoch = p.epoch AND t.topic = k.topic
                   )
              )
         )
    INTO v_home, v_names
    FROM hawser_peer_data.channels AS m
    LEFT JOIN hawser_peer_data.channels AS b ON b.channel_id = m.retry_of
    JOIN hawser_peer_data.topics AS k ON k.id = p_topic_id
   -- One that was made for its owner has none set.
   WHERE m.channel_id = p_channel_id AND m.owner = p_name;
  v_running := hawser.running_peers(coalesce(v_names, '{}'));
  heir := (
    SELECT n.name FROM unnest(v_names) AS n (name)
     ORDER BY n.name <> ALL (v_running), n.name <> v_home, n.name COLLATE "C" LIMIT 1
  );
END
