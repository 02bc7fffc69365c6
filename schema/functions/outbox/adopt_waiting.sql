#variable_conflict use_column
DECLARE
  v_topics text[];
  v_running text[];
BEGIN
  -- A member of a group may be claiming messages of the topic: the next turn looks again.
  v_topics := ARRAY(
    SELECT w.topic FROM hawser_data.peer_waiting_topics AS w
     WHERE w.for_group = '' AND EXISTS (SELECT FROM hawser_data.listeners AS a WHERE a.topic = w.topic)
       AND NOT EXISTS (
         SELECT FROM hawser_data.listeners AS a
           JOIN hawser_data.peers AS p ON p.name = a.client_name
          WHERE a.topic = w.topic AND p.group_name IS NOT NULL
       )
     ORDER BY w.topic LIMIT @OutboxConstants.page_messages@ FOR UPDATE SKIP LOCKED
  );
  -- What members have claimed comes before what waits with the same keys. A statement of its own, which sees what was claimed
  -- before the lock.
  IF cardinality(v_topics) > 0 THEN
    v_topics := ARRAY(
      SELECT t.topic
        FROM unnest(v_topics) AS t (topic)
        JOIN hawser_data.topics AS k ON k.topic = t.topic
       WHERE NOT EXISTS (
         SELECT FROM hawser_data.channels AS m
           LEFT JOIN hawser_data.cursors AS c ON c.connection_key = m.connection_key
           JOIN hawser_data.stored_messages AS s
             ON s.connection_key = m.connection_key AND (s.epoch, s.number) > (coalesce(c.epoch, 0), coalesce(c.v, 0))
          WHERE m.sender_name = @OutboxConstants.peer_sender@ AND m.source_topic = @OutboxConstants.claims_topic@ AND s.topic_key = k.k
       )
       -- What waits to be tried again has left the stored messages.
       AND NOT EXISTS (
         SELECT FROM hawser_data.parked_messages AS p
           JOIN hawser_data.channels AS m ON m.connection_key = p.connection_key
          WHERE m.sender_name = @OutboxConstants.peer_sender@ AND m.source_topic = @OutboxConstants.claims_topic@ AND p.topic_key = k.k
            AND p.key_hash IS NOT NULL
       )
    );
  END IF;
  connection_keys := '{}';
  IF cardinality(v_topics) = 0 THEN
    RETURN;
  END IF;
  v_running := hawser.running_peers(ARRAY(SELECT DISTINCT a.client_name FROM hawser_data.listeners AS a WHERE a.topic = ANY (v_topics)));
  -- What waits there is its own, with all that is stored behind it.
  UPDATE hawser_data.channels AS m
     SET owner = f.client_name
    FROM (
      SELECT DISTINCT ON (w.topic) w.connection_key, a.client_name
        FROM hawser_data.peer_waiting_topics AS w
        JOIN hawser_data.listeners AS a ON a.topic = w.topic
       WHERE w.topic = ANY (v_topics) AND w.for_group = ''
       ORDER BY w.topic, a.client_name <> ALL (v_running), a.client_name
    ) AS f
   WHERE m.connection_key = f.connection_key AND m.owner IS NULL;
  WITH gone AS (
    DELETE FROM hawser_data.peer_waiting_topics AS w WHERE w.topic = ANY (v_topics) AND w.for_group = '' RETURNING w.connection_key
  )
  SELECT array_agg(g.connection_key) INTO connection_keys FROM gone AS g;
END
