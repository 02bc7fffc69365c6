#variable_conflict use_column
-- The function's settings: see drain_messages. For each channel its first row is looked up; of an EXISTS the planner makes a
-- join that reads the whole table where a few channels have most of it.
BEGIN
  RETURN QUERY
  SELECT m.connection_key, NULL::text
    FROM hawser_data.channels AS m
    LEFT JOIN LATERAL (
      -- As in cursor_of.
      SELECT n.epoch, n.v FROM hawser_data.cursors AS n WHERE n.connection_key = m.connection_key
       ORDER BY n.connection_key DESC, n.epoch DESC, n.v DESC LIMIT 1
    ) AS c ON true
   WHERE coalesce(m.owner, m.listener_name) = p_listener_name
     AND (coalesce(
       -- Behind the cursor first: up to it the index has what was deleted, until a vacuum.
       (
         SELECT s.connection_key
           FROM hawser_data.stored_messages AS s
          WHERE s.connection_key = m.connection_key AND (s.epoch, s.number) > (coalesce(c.epoch, 0), coalesce(c.v, 0))
          ORDER BY s.connection_key, s.epoch, s.number
          LIMIT 1
       ),
       -- What has come late. What is enqueued never does: its relay stores it in the order of epochs.
       (
         SELECT s.connection_key
           FROM hawser_data.stored_messages AS s
          WHERE s.connection_key = m.connection_key AND m.sender_name <> @OutboxConstants.peer_sender@
          ORDER BY s.connection_key, s.epoch, s.number
          LIMIT 1
       )
     ) IS NOT NULL
     -- A parked message is due: nobody has the channel open.
     OR (
       SELECT p.connection_key
         FROM hawser_data.parked_messages AS p
        WHERE p.connection_key = m.connection_key AND p.attempts > 0 AND p.due_at < clock_timestamp()
        LIMIT 1
     ) IS NOT NULL)
   ORDER BY m.connection_key;
  RETURN QUERY
  SELECT w.connection_key, w.topic
    FROM hawser_data.listeners AS a
    JOIN hawser_data.peers AS p ON p.name = a.client_name AND p.group_name IS NOT NULL
    JOIN hawser_data.peer_waiting_topics AS w ON w.topic = a.topic AND w.for_group IN ('', p.group_name)
   WHERE a.client_name = p_listener_name
     AND (
       SELECT s.connection_key FROM hawser_data.stored_messages AS s WHERE s.connection_key = w.connection_key
        ORDER BY s.connection_key, s.epoch, s.number LIMIT 1
     ) IS NOT NULL
   ORDER BY w.connection_key;
END
