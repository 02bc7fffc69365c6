#variable_conflict use_column
DECLARE
  v_topics text[];
  v_running text[];
BEGIN
  v_topics := ARRAY(
    SELECT w.topic FROM hawser.peer_waiting_topics AS w
     WHERE EXISTS (SELECT FROM hawser.topic_addr AS a WHERE a.topic = w.topic)
     ORDER BY w.topic LIMIT @OutboxConstants.page_messages@
  );
  connection_keys := '{}';
  IF cardinality(v_topics) = 0 THEN
    RETURN;
  END IF;
  v_running := hawser.running_peers(ARRAY(SELECT DISTINCT a.client_name FROM hawser.topic_addr AS a WHERE a.topic = ANY (v_topics)));
  -- What waits there is its own, with all that is stored behind it.
  UPDATE hawser.conn_key_map AS m
     SET owner = f.client_name
    FROM (
      SELECT DISTINCT ON (w.topic) w.connection_key, a.client_name
        FROM hawser.peer_waiting_topics AS w
        JOIN hawser.topic_addr AS a ON a.topic = w.topic
       WHERE w.topic = ANY (v_topics)
       ORDER BY w.topic, a.client_name <> ALL (v_running), a.client_name
    ) AS f
   WHERE m.connection_key = f.connection_key AND m.owner IS NULL;
  WITH gone AS (
    DELETE FROM hawser.peer_waiting_topics AS w WHERE w.topic = ANY (v_topics) RETURNING w.connection_key
  )
  SELECT array_agg(g.connection_key) INTO connection_keys FROM gone AS g;
END
