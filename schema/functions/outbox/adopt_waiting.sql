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
           JOIN hawser_data.peers AS p ON p.name = a.listener_name
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
           LEFT JOIN hawser_data.cursors AS c ON c.channel_id = m.channel_id
           JOIN hawser_data.stored_messages AS s
             ON s.channel_id = m.channel_id AND (s.epoch, s.number) > (coalesce(c.epoch, 0), coalesce(c.number, 0))
          WHERE m.sender_name = @OutboxConstants.peer_sender@ AND m.source_topic = @OutboxConstants.claims_topic@ AND s.topic_id = k.id
       )
       -- What waits to be tried again has left the stored messages.
       AND NOT EXISTS (
         SELECT FROM hawser_data.parked_messages AS p
           JOIN hawser_data.channels AS m ON m.channel_id = p.channel_id
          WHERE m.sender_name = @OutboxConstants.peer_sender@ AND m.source_topic = @OutboxConstants.claims_topic@ AND p.topic_id = k.id
            AND p.key_hash IS NOT NULL
       )
    );
  END IF;
  channel_ids := '{}';
  IF cardinality(v_topics) = 0 THEN
    RETURN;
  END IF;
  v_running := hawser.running_peers(ARRAY(SELECT DISTINCT a.listener_name FROM hawser_data.listeners AS a WHERE a.topic = ANY (v_topics)));
  -- What waits there is its own, with all that is stored behind it.
  UPDATE hawser_data.channels AS m
     SET owner = f.listener_name
    FROM (
      SELECT DISTINCT ON (w.topic) w.channel_id, a.listener_name
        FROM hawser_data.peer_waiting_topics AS w
        JOIN hawser_data.listeners AS a ON a.topic = w.topic
       WHERE w.topic = ANY (v_topics) AND w.for_group = ''
       ORDER BY w.topic, a.listener_name <> ALL (v_running), a.listener_name
    ) AS f
   WHERE m.channel_id = f.channel_id AND m.owner IS NULL;
  WITH gone AS (
    DELETE FROM hawser_data.peer_waiting_topics AS w WHERE w.topic = ANY (v_topics) AND w.for_group = '' RETURNING w.channel_id
  )
  SELECT array_agg(g.channel_id) INTO channel_ids FROM gone AS g;
END
