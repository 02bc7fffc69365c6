#variable_conflict use_column
BEGIN
  RETURN QUERY
  SELECT t.topic, t.listener_name AS listener, t.addr AS address, t.durable, t.subscribed, g.group_name,
         t.listener_name IN (
           SELECT unnest(r.running) FROM hawser.running_peers(ARRAY(SELECT p.name FROM hawser_data.peers AS p)) AS r
         ) AS running
    FROM hawser_data.listeners AS t
    LEFT JOIN hawser_data.peers AS g ON g.name = t.listener_name;
END
